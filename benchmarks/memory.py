"""What a training step takes in memory and time: plain, rematerialised, in chunks.

    python -m benchmarks.memory --out=runs/memory
    python -m benchmarks.memory --compile_only        # no step is run

SimCLR on ResNet-50 and ViT-S/8, 64 px, 256 pairs of noise, the whole step from uint8 images
to the update. Prints a Markdown table; with --out also writes it to OUT.md, and the numbers
to OUT.json. Columns:

* kept: bytes that wait between the forward and the backward pass, as JAX counts them
  before compilation; parameters are not counted. All devices together.
* temporaries: what the compiled step allocates on one device beside its arguments (the
  state and the batch), as its compiler says. It may have cut or moved what JAX asked for:
  XLA on a CPU merges the second computation of `remat` with the first.
* ms a step: median and range of the rounds, in which all settings take turns; then the
  median of the ratios to the first setting within a round. A step that would not fit into
  the device's memory is not run.
"""

import concurrent.futures
import json
import pathlib
import statistics
import time
from typing import Any

import jax
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict

from benchmarks.training import kept_bytes
from configs import simclr_resnet50, simclr_vit
from sp_jax.methods import RunSize
from sp_jax.recipe import make_recipe
from sp_jax.sharding import by_batch, make_mesh
from sp_jax.train.step import compile_step, init_state, make_step

MODELS = {"resnet50": simclr_resnet50, "vit_small": simclr_vit}
SETTINGS = ("plain", "remat", "chunks=2", "chunks=4", "chunks=8")

_MODELS = flags.DEFINE_list("models", list(MODELS), f"Among {', '.join(MODELS)}.")
_SETTINGS = flags.DEFINE_list(
    "settings", list(SETTINGS), "plain, remat, chunks=N or remat+chunks=N."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 256, "Pairs, over all devices.", 1)
_DTYPE = flags.DEFINE_string("dtype", "auto", "As config.dtype.")
_STEPS = flags.DEFINE_integer("steps", 10, "Steps of a setting in a round.", 1)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds.", 1)
_COMPILE_ONLY = flags.DEFINE_bool("compile_only", False, "Run no step.")
_OUT = flags.DEFINE_string("out", None, "Path of the two files, without their ending.")

RUN = {"total_steps": 1000, "steps_per_epoch": 10, "num_images": 10_000}


def make_config(model: str, setting: str) -> ConfigDict:
    """The config of SimCLR with a setting such as "remat+chunks=4"."""
    config = MODELS[model].get_config()
    config.batch_size, config.dtype = _BATCH_SIZE.value, _DTYPE.value
    for part in setting.split("+"):
        name, _, value = part.partition("=")
        if name == "remat" and not value:
            config.model.remat = True
        elif name == "chunks" and value.isdecimal():
            config.model.chunks = int(value)
        elif part != "plain":
            raise app.UsageError(f"There is no setting {setting!r}.")
    return config


def measure(model: str) -> list[dict[str, Any]]:
    """A row of numbers for each setting."""
    mesh = make_mesh()
    rng = np.random.default_rng(0)
    size = _BATCH_SIZE.value
    images = rng.integers(0, 256, (size, 2, 64, 64, 3), np.uint8)
    index = rng.integers(0, RUN["num_images"], (size, 2), np.int32)
    batch = {"image": images, "index": index, "label": np.full(size, -1, np.int32)}
    batch = jax.device_put(batch, by_batch(mesh))
    configs = {name: make_config(model, name) for name in _SETTINGS.value}
    state, lowered = None, []
    for config in configs.values():
        recipe = make_recipe(config.to_dict(), RunSize(batch_size=size, **RUN))
        if state is None:  # the same for all
            state = init_state(recipe, 0, mesh)
        step = compile_step(make_step(recipe, mesh), mesh)
        lowered.append(step.lower(state, batch))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        compiled = list(pool.map(lambda step: step.compile(), lowered))

    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", float("inf"))
    rows, programs = [], []
    for (name, config), program in zip(configs.items(), compiled, strict=True):
        memory = program.memory_analysis()
        rows.append(
            {
                "model": model,
                "setting": name,
                "kept_mb": kept_bytes(config, RunSize(batch_size=size, **RUN)) / 1e6,
                "temporary_mb": memory.temp_size_in_bytes / 1e6,
                "argument_mb": memory.argument_size_in_bytes / 1e6,
                "ms": [],
            }
        )
        if memory.temp_size_in_bytes + memory.argument_size_in_bytes < limit:
            programs.append((rows[-1]["ms"], program))
    if _COMPILE_ONLY.value:
        return rows
    for round_number in range(-1, _ROUNDS.value):  # the first one warms up
        for times, program in programs:
            started = time.perf_counter()
            for _ in range(_STEPS.value if round_number >= 0 else 1):
                state, metrics, _ = program(state, batch)
            jax.block_until_ready(metrics)
            if round_number >= 0:
                passed = time.perf_counter() - started
                times.append(1e3 * passed / _STEPS.value)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown; each model's are compared with its first."""
    lines = [
        "| model | setting | kept, MB | temporaries, MB | ms a step | x |",
        "|---|---|---|---|---|---|",
    ]
    first: dict[str, Any] = {}
    for row in rows:
        if first.get("model") != row["model"]:
            first = row
        cells = [row["model"], row["setting"]]
        for column in ("kept_mb", "temporary_mb"):
            cells.append(f"{row[column]:,.0f}")
        if row["ms"]:
            low, high = min(row["ms"]), max(row["ms"])
            middle = statistics.median(row["ms"])
            cells.append(f"{middle:.1f} ({low:.1f} to {high:.1f})")
        else:
            cells.append("")
        ratios = [a / b for a, b in zip(row["ms"], first["ms"], strict=False)]
        cells.append(f"{statistics.median(ratios):.2f}" if ratios else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Measure, print and write."""
    del argv
    if unknown := set(_MODELS.value) - MODELS.keys():
        raise app.UsageError(f"There is no model {min(unknown)!r}.")
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    rows = [row for model in _MODELS.value for row in measure(model)]
    text = table(rows)
    print(f"{device}, {_BATCH_SIZE.value} pairs, dtype {_DTYPE.value}\n\n{text}")
    if _OUT.value:
        out = pathlib.Path(_OUT.value)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.with_name(f"{out.name}.md").write_text(text + "\n")
        about = {
            "device": device,
            "jax": jax.__version__,
            "batch_size": _BATCH_SIZE.value,
            "dtype": _DTYPE.value,
            "rows": rows,
        }
        out.with_name(f"{out.name}.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
