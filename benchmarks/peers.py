"""Pairs a second of the training step: this project beside PyTorch, in one run.

    python -m benchmarks.peers --method=simclr --model=resnet50 --batch_size=256

Everything is a whole step (views of the embedded drawings at 64 px, forward, backward,
optimiser) with the same method, network, batch and kind of optimiser, activations in
bfloat16 on a GPU and float32 on a CPU:

* `sp_jax`: the trainer's own step, with the recipe of configs/;
* `lightly`: its transforms on PIL images in worker processes, its heads, loss and LARS;
* `torch, views on the device`: plain PyTorch at its fastest, the pixels in device memory,
  views by kornia (or, where that is missing, by torchvision v2, which draws one set of
  random numbers for a whole batch);
* `torch, step only`: the same on views that are there already, again and again. No loading
  and no augmentation: more than PyTorch can reach in training.

PyTorch has channels_last, cudnn.benchmark, TF32 and torch.compile (--compile=off for
without), and on a GPU the plain ones a CUDA graph of the whole step. They take turns in one
process, so that another load on the machine hits all alike. What is not installed is left
out with a sentence. Prints a Markdown table (median and range over the rounds; the ratio
of each round) and one line of JSON.
"""

import argparse
import contextlib
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import pathlib
import platform
import statistics
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

METHODS = ("simclr", "vicreg", "byol")
MODELS = ("resnet18", "resnet50", "vit_small")
PACKAGES = ("jax", "torch", "torchvision", "timm", "lightly", "kornia")

Turn = Callable[[], float]  # makes the steps of a turn; returns pairs a second


def make_config(args: argparse.Namespace) -> ConfigDict:
    """The recipe of configs/ with the method, the backbone and the batch of the flags."""
    vit = args.model.startswith("vit")
    name = f"configs.{args.method}_vit"
    if not vit or importlib.util.find_spec(name) is None:
        name = f"configs.{args.method}_resnet50"
    config = importlib.import_module(name).get_config()
    size = config.image_size
    config.model = ConfigDict(
        {"name": args.model, "patch_size": 8, "depth": 12, "image_size": size}
        if vit
        else {"name": args.model, "stem": args.stem}
    )
    config.batch_size = args.batch_size
    config.data.store = "emoji"
    return config


def ours(
    stack: contextlib.ExitStack, config: ConfigDict, images: Any, steps: int
) -> Turn:
    """The trainer's own step, fed as the trainer feeds it."""
    from benchmarks.training import prepare
    from input_pipeline.resident import place
    from sp_jax.train.feed import steps_per_call
    from sp_jax.train.step import make_mesh

    placement, _ = place("auto", images)
    calls = min(steps_per_call(0), steps)
    training = stack.enter_context(
        prepare(config, images, make_mesh(), placement, calls)
    )
    return lambda: config.batch_size / training.run(steps)


def make_work(config: ConfigDict, images: Any) -> Any:
    """The same recipe as a `peers_torch.Work`, with the same pairs."""
    from benchmarks.peers_torch import Work
    from input_pipeline.pairing import semantic_pairs
    from sp_jax import methods
    from sp_jax.optim import linear_scaling
    from sp_jax.recipe import make_views

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
            for view in make_views(plain)
        ],
        batch_size=config.batch_size,
        images=images.images[np.arange(len(images))],
        pairs=np.stack([table.first, table.second], axis=1),
    )


def peers(config: ConfigDict, images: Any, args: argparse.Namespace) -> dict[str, Any]:
    """A `peers_torch.Peer` for each that is installed."""
    needed = ["torch", "torchvision"] + ["timm"] * args.model.startswith("vit")
    if not installed("PyTorch", *needed):
        return {}

    from benchmarks import peers_torch

    torch, on_gpu = peers_torch.torch, device_kind() == "gpu"
    if on_gpu and not torch.cuda.is_available():
        print("PyTorch is left out: it does not see the GPU.")
        return {}
    torch.set_num_threads(cores())
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    settings = peers_torch.Settings(
        device=torch.device("cuda" if on_gpu else "cpu"),
        steps=args.steps,
        compile_it=args.compile == "auto",
        workers=args.workers,
    )
    work = make_work(config, images)
    found = {}
    if installed("lightly", "lightly"):
        found["lightly"] = peers_torch.lightly_peer(work, settings)
    library, make_view = "torchvision", peers_torch.torchvision_view
    if installed("kornia", "kornia"):
        library, make_view = "kornia", peers_torch.kornia_view
    with_views, step_only = peers_torch.plain_peers(work, settings, make_view)
    found[f"torch, views by {library} on the device"] = with_views
    found["torch, step only"] = step_only
    return found


def installed(what: str, *packages: str) -> bool:
    missing = [x for x in packages if importlib.util.find_spec(x) is None]
    if missing:
        print(f"{what} is left out: {' and '.join(missing)} not installed.")
    return not missing


def cores() -> int:
    return len(os.sched_getaffinity(0))


def device_kind() -> str:
    import jax

    return jax.default_backend()


def device_name() -> str:
    import jax

    if jax.default_backend() != "cpu":
        return jax.devices()[0].device_kind
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    names = [x.partition(": ")[2] for x in lines if x.startswith("model name")]
    return names[0] if names else platform.machine()


def peak_memory() -> float | None:
    """The most GB of a GPU that jax took, the pixels included; None on a CPU."""
    import jax

    stats = jax.devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] / 1e9 if stats else None


def measure(turns: dict[str, Turn], rounds: int) -> dict[str, list[float]]:
    """Pairs a second in each round, but for the first one, which warms up."""
    speeds = {name: [] for name in turns}
    for i in range(rounds + 1):
        for name, turn in turns.items():
            speed = turn()
            if i > 0:
                speeds[name].append(speed)
    return speeds


def report(
    speeds: dict[str, list[float]], memory: dict[str, float | None]
) -> dict[str, dict[str, Any]]:
    """Print the table; the same numbers for the JSON."""
    print("| step | pairs/s | range | sp_jax is faster by | range | peak GB |")
    print("|---|---|---|---|---|---|")
    found = {}
    for name, values in speeds.items():
        ratios = [a / b for a, b in zip(speeds["sp_jax"], values, strict=True)]
        peak, digits = memory[name], 0 if max(values) > 1000 else 1
        cells = name, *spread(values, digits), *spread(ratios, 2)
        print(f"| {' | '.join(cells)} | {'' if peak is None else f'{peak:.1f}'} |")
        found[name] = {"pairs_per_s": values, "ratio": ratios, "peak_gb": peak}
    return found


def spread(values: list[float], digits: int) -> tuple[str, str]:
    """The median; the range."""
    low, middle, high = (
        f"{f(values):,.{digits}f}" for f in (min, statistics.median, max)
    )
    return middle, f"{low} to {high}"


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--method", choices=METHODS, default="simclr")
    parser.add_argument("--model", choices=MODELS, default="resnet50")
    parser.add_argument("--stem", choices=("imagenet", "small"), default="imagenet")
    parser.add_argument("--batch_size", type=int, default=256, help="pairs")
    parser.add_argument("--steps", type=int, default=50, help="of a turn")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", choices=("auto", "off"), default="auto")
    parser.add_argument("--workers", type=int, default=cores(), help="of lightly")
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    args = parse(argv)
    # Before jax and torch are imported. PyTorch needs a part of the GPU. Its threads on a
    # CPU wait in a loop: they would keep the cores from the loader's workers.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

    from benchmarks.training import open_images

    config = make_config(args)
    images = open_images(config)
    with contextlib.ExitStack() as stack:
        turns = {"sp_jax": ours(stack, config, images, args.steps)}
        turns["sp_jax"]()  # compiles, beside nothing else
        memory = {"sp_jax": peak_memory()}
        for name, peer in peers(config, images, args).items():
            turns[name], memory[name] = peer
        speeds = measure(turns, args.rounds)
    steps = report(speeds, memory)
    context = {
        "benchmark": "peers",
        "command": f"python -m benchmarks.peers {' '.join(argv)}".strip(),
        "device": device_name(),
        "cores": cores(),
        "versions": versions(),
    }
    print(json.dumps(context | {"steps": steps}))


if __name__ == "__main__":
    main(sys.argv[1:])
