"""Pairs per second of the training step: this project and others, in one run.

    python -m benchmarks.peers --methods=simclr --models=resnet50 --out=peers.jsonl
    python -m benchmarks.peers --models=quick      # what configs/quickstart.py trains

Everything is a whole step (views of the embedded drawings at 64 px, forward, backward,
optimiser) with the same method, network, batch, augmentation and kind of optimiser,
activations in bfloat16 on a GPU and float32 on a CPU:

* `sp_jax`: the trainer's own step, with the recipe of configs/, pixels on the device;
* `torch`: PyTorch at its fastest, pixels on the device, views by kornia;
* `torch_step`: the same on views that are there already, again and again. No loading and
  no augmentation: more than PyTorch can reach in training;
* `lightly`: its transforms of PIL images in worker processes, its loss and LARS;
* `spt_jax`: the JAX back end of stable-pretraining, by its own trainer. Its views and its
  projectors do less than those of the recipe: `benchmarks.peers_spt` says what is missing.

Each of those of PyTorch first tries its settings (memory format, torch.compile, a CUDA
graph) and takes the fastest. sp_jax, PyTorch and stable-pretraining have a process each,
which waits while another takes its turn, so that whoever is timed has the machine for
itself. All take their turns round after round: another load on the machine hits all alike.
What is not installed is left out with a sentence. Prints a Markdown row each (median and
range over the rounds; the ratio of each round to that of sp_jax), and writes JSON lines. The
first round is not counted.

The model `quick` is the network of a recipe's `:quick` variant, with its batch of 128 pairs
and its views: that of SimCLR is configs/quickstart.py.

stable-pretraining itself needs much that its JAX back end does not; this is enough:
`pip install --no-deps stable-pretraining==0.1.8 loguru==0.7.3 omegaconf==2.3.1
antlr4-python3-runtime==4.9.3`.
"""

import argparse
import contextlib
import dataclasses
import functools
import importlib.metadata
import importlib.util
import inspect
import itertools
import multiprocessing
import os
import platform
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from benchmarks.common import append_json, spread, table_head, table_row, take_turns
from benchmarks.peers_work import Work

# No jax and no torch here: each of the processes imports this file, too.

METHODS = ("simclr", "vicreg")
NEEDS = {  # packages
    "torch": ("torch", "torchvision", "timm", "kornia"),
    "torch_step": ("torch", "torchvision", "timm", "kornia"),
    "lightly": ("torch", "torchvision", "timm", "lightly"),
    "spt_jax": ("stable_pretraining", "loguru", "omegaconf"),
}
COLUMNS = (
    *("method", "model", "peer", "settings", "pairs/s", "range"),
    *("sp_jax is faster by", "range"),
)

Turn = Callable[[int], float]  # makes some steps; returns seconds a step


@dataclasses.dataclass(frozen=True)
class Side:
    """The turns that one process offers.

    Attributes:
        device: its name; "cpu" for a CPU.
        settings: of each peer.
        turns: of each peer.
    """

    device: str
    settings: dict[str, str]
    turns: dict[str, Turn]


@contextlib.contextmanager
def jax_side(config: Any, steps: int) -> Iterator[Side]:
    """The trainer's own step on a config, for turns of `steps` steps."""
    import jax

    from benchmarks.training import open_images, prepare
    from sp_jax.sharding import make_mesh
    from sp_jax.train.feed import steps_per_call

    calls = min(steps_per_call(0), steps)
    images = open_images(config)
    with prepare(config, images, make_mesh(), "device", calls) as training:
        settings = {"sp_jax": f"{calls} steps a dispatch"}
        training.run(steps)  # compiles
        yield Side(jax.devices()[0].device_kind, settings, {"sp_jax": training.run})


@contextlib.contextmanager
def torch_side(work: Work, names: list[str]) -> Iterator[Side]:
    """The peers of these names on a work."""
    from benchmarks import peers_torch

    peers = peers_torch.make_peers(work, names)
    settings = {name: settings for name, (settings, _) in peers.items()}
    turns = {name: turn for name, (_, turn) in peers.items()}
    yield Side(peers_torch.device_name(), settings, turns)


@contextlib.contextmanager
def spt_side(work: Work) -> Iterator[Side]:
    """stable-pretraining's JAX back end on a work."""
    os.environ.setdefault("LOGURU_LEVEL", "WARNING")  # it logs among the rows
    from sp_jax.xla_flags import set_cpu_flags

    set_cpu_flags()  # those of sp_jax: its own users would not have them
    import jax

    from benchmarks import peers_spt

    turns = {"spt_jax": peers_spt.make_turn(work)}
    yield Side(jax.devices()[0].device_kind, {"spt_jax": "its trainer"}, turns)


def make_work(config: Any, images: Any) -> Work:
    """A config for the other peers, with the same pairs of a store's images."""
    from input_pipeline.pairs.pairing import semantic_pairs
    from sp_jax import methods
    from sp_jax.optim import linear_scaling
    from sp_jax.recipe import view_configs

    table = semantic_pairs(images, rounds=config.data.rounds, seed=0)
    plain, module = config.to_dict(), methods.get(config.method)
    parameters = inspect.signature(module.create).parameters.values()
    options = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    given = {name: x for name, x in plain["optimizer"].items() if x is not None}
    recipe = module.OPTIMIZER | given
    rate = linear_scaling(recipe["learning_rate"], config.batch_size)
    return Work(
        method=config.method,
        model=plain["model"],
        options=options | plain["method_options"],
        optimizer=recipe | {"learning_rate": rate},
        views=[
            dataclasses.asdict(view) | {"kernel_size": view.kernel_size}
            for view in view_configs(plain)
        ],
        batch_size=config.batch_size,
        images=images.images[np.arange(len(images))],
        pairs=np.stack([table.first, table.second], axis=1),
    )


# Processes


def serve(pipe: Connection, open_side: Callable, *args: Any) -> None:
    """Make a side, send what it offers, and take turns until the pipe is closed."""
    with open_side(*args) as side:
        pipe.send(dataclasses.replace(side, turns={}))
        with contextlib.suppress(EOFError):
            while True:
                name, steps = pipe.recv()
                pipe.send(side.turns[name](steps))


@contextlib.contextmanager
def process(open_side: Callable, *args: Any) -> Iterator[Side]:
    """A side in its own process; its turns are calls to that process.

    Raises:
        SystemExit: the process has failed, and has printed why.
    """
    # Threads of OpenMP that wait in a loop keep the cores from the loader's workers, and
    # where other programs run they made a step of PyTorch several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # jax would take most of a GPU's memory at once.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    worker = context.Process(target=serve, args=(there, open_side, *args))
    worker.start()
    there.close()

    def call(name: str, steps: int) -> float:
        here.send((name, steps))
        return here.recv()

    try:
        side = here.recv()
        turns = {name: functools.partial(call, name) for name in side.settings}
        yield dataclasses.replace(side, turns=turns)
    except EOFError:
        sys.exit("A process has ended; see its output for the reason.")
    finally:
        here.close()
        worker.join()


# Rows


def make_rows(
    config: Any, sides: list[Side], seconds: dict[str, list[float]]
) -> list[dict[str, Any]]:
    """A row for each peer, sp_jax first."""
    from benchmarks.training import model_name

    settings = {name: x for side in sides for name, x in side.settings.items()}
    model = model_name(config)
    return [
        {
            "method": config.method,
            "model": model,
            "batch_size": config.batch_size,
            "peer": name,
            "settings": settings[name],
            "pairs_per_s": [config.batch_size / x for x in values],
            "ratio": [x / y for x, y in zip(values, seconds["sp_jax"], strict=True)],
            "device": sides[0].device,
            "versions": versions(),
        }
        for name, values in seconds.items()
    ]


def markdown(row: dict[str, Any]) -> str:
    """One row of the table."""
    cells = [row[name] for name in ("method", "model", "peer", "settings")]
    fast = max(row["pairs_per_s"]) >= 1000
    cells += spread(row["pairs_per_s"], ",.0f" if fast else ".1f")
    cells += ["", ""] if row["peer"] == "sp_jax" else spread(row["ratio"], ".2f")
    return table_row(cells)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter."""
    found = {"python": platform.python_version()}
    for name in ("jax", *sorted({x for names in NEEDS.values() for x in names})):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def installed(names: list[str]) -> list[str]:
    """The peers that can run; the others are named."""
    found = []
    for name in names:
        missing = [x for x in NEEDS[name] if importlib.util.find_spec(x) is None]
        if missing:
            print(f"{name} is left out: {' and '.join(missing)} not installed.")
        else:
            found.append(name)
    return found


def sides_of(names: list[str]) -> list[tuple]:
    """For each process besides sp_jax's, the function that opens its side, and arguments."""
    torch = [name for name in names if name != "spt_jax"]
    sides: list[tuple] = [(torch_side, torch)] if torch else []
    return sides + [(spt_side,)] * ("spt_jax" in names)


def parse(argv: list[str]) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words = {"type": lambda text: text.split(",")}
    parser.add_argument("--methods", default=["simclr"], help="simclr,vicreg", **words)
    parser.add_argument(
        "--models",
        default=["resnet50"],
        help="resnet18,resnet50:small,vit_small,quick",
        **words,
    )
    parser.add_argument("--peers", default=list(NEEDS), help=",".join(NEEDS), **words)
    parser.add_argument("--batch_size", type=int, help="pairs; the recipe's by default")
    parser.add_argument("--steps", type=int, default=50, help="steps of a turn")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", help="file for JSON lines, appended")
    options = parser.parse_args(argv)
    for name in options.peers:
        if name not in NEEDS:
            parser.error(f"unknown peer {name!r}: choose from {', '.join(NEEDS)}")
    for name in options.methods:
        if name not in METHODS:
            parser.error(f"unknown method {name!r}: choose from {', '.join(METHODS)}")
    return options


def main(argv: list[str]) -> None:
    """Measure each method on each model, and print."""
    options = parse(argv)
    # PyTorch would use one GPU, and the others all of them.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    os.environ["CUDA_VISIBLE_DEVICES"] = visible
    from benchmarks.training import make_config, open_images

    names = installed(options.peers)
    if not names:
        sys.exit(
            "error: none of these peers is installed: there is nothing to compare."
        )
    print(table_head(COLUMNS), flush=True)
    for method, model in itertools.product(options.methods, options.models):
        config = make_config(method, model, options.batch_size)
        config.data.store = "emoji"
        with contextlib.ExitStack() as stack:
            sides = [stack.enter_context(process(jax_side, config, options.steps))]
            work = make_work(config, open_images(config))
            for open_side, *args in sides_of(names):
                sides.append(stack.enter_context(process(open_side, work, *args)))
            if len({side.device == "cpu" for side in sides}) > 1:
                where = f"{sides[0].device} and PyTorch on {sides[1].device}"
                sys.exit(f"jax runs on {where}: nothing to compare.")
            turns = {
                name: functools.partial(turn, options.steps)
                for side in sides
                for name, turn in side.turns.items()
            }
            seconds = take_turns(turns, options.rounds, warm_up=1)
        for row in make_rows(config, sides, seconds):
            print(markdown(row), flush=True)
            append_json(options.out, row)


if __name__ == "__main__":
    main(sys.argv[1:])
