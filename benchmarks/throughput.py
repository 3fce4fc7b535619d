"""Pairs per second of the training step, and where the time goes.

    python -m benchmarks.throughput --config=configs/simclr_resnet50.py
    python -m benchmarks.throughput --methods=simclr,byol,vicreg,dino \
        --models=resnet18,resnet50,resnet50:small,vit_small --out=throughput.jsonl

The trainer's own step, augmentation included, on the embedded drawings repeated to the
paper's 58,718 images. With `--config` any value can be changed as for the trainer. With
`--methods` and `--models` one row for each pair of them; with `--compile_jobs` several compile
at once, before the first is timed. Prints a Markdown row each, and writes JSON lines.

* pairs/s: of the median step time; the range is over `--rounds` rounds of `--steps` steps.
* TFLOP: operations of a step as XLA counts them before it optimises. MFU is these over
  time and the device's peak in bfloat16; left out where the peak is not known.
* floor: the longer of TFLOP / peak and bytes / bandwidth, with the bytes that XLA counts
  in the compiled step (a kernel that it does not know counts its operands and results).
* waiting: share of the time in which the host waited for a batch (streamed only).
* augment: time of the augmentation, compiled alone, over that of the step.
* memory: arguments and temporaries that XLA planned for the compiled step.

With JAX_COMPILATION_CACHE_DIR, programs are kept there; `compile_s` of one that was there is
the time to read it.
"""

import concurrent.futures
import contextlib
import itertools
import pathlib
import statistics
import tempfile
import time
from typing import Any

import jax
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from benchmarks.common import append_json, table_head, table_row
from benchmarks.training import (
    Training,
    count_flops,
    make_config,
    model_name,
    open_images,
    prepare,
)
from sp_jax.augment import make_views
from sp_jax.sharding import make_mesh
from sp_jax.train.feed import steps_per_call
from sp_jax.train.trace import trace_options

_CONFIG = config_flags.DEFINE_config_file("config", None, "Path of a config file.")
_METHODS = flags.DEFINE_list(
    "methods", [], "Measure these methods, instead of --config."
)
_MODELS = flags.DEFINE_list(
    "models", ["resnet50"], "resnet18 | resnet50 | resnet50:small | vit_small | ..."
)
_LOCAL_CROPS = flags.DEFINE_integer(
    "local_crops", 0, "Local crops of the methods that have them."
)
_BATCH = flags.DEFINE_integer("batch_size", 256, "Pairs per step, with --methods.")
_OWN_DATA = flags.DEFINE_bool(
    "own_data", False, "Use the config's store, not the drawings."
)
_IMAGES = flags.DEFINE_integer(
    "images", 58_718, "Repeat or cut the store to this number of images; 0: do not."
)
_PLACEMENTS = flags.DEFINE_list("placements", ["device", "stream"], "device | stream")
_CALLS = flags.DEFINE_list(
    "steps_per_call", None, "Steps per dispatch to try, with the images on the device."
)
_STEPS = flags.DEFINE_integer("steps", 100, "Steps of a round.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds.")
_JOBS = flags.DEFINE_integer(
    "compile_jobs", 1, "Number of programs that compile at once."
)
_TRACE = flags.DEFINE_string("trace", "", "Folder for a profile of each row.")
_OUT = flags.DEFINE_string("out", "", "File for JSON lines, appended.")

# Dense bfloat16 FLOP/s and bytes/s of the data sheets, by a part of the device's name.
PEAKS = {
    "A100-SXM4-80GB": (312e12, 2.04e12),
    "A100": (312e12, 1.56e12),
    "H100": (989e12, 3.35e12),
    "H200": (989e12, 4.8e12),
}

COLUMNS = (
    *("method", "model", "placement", "steps_per_call", "pairs_per_s", "range"),
    *("step_ms", "floor_ms", "tflop", "gb", "mfu", "waiting", "augment"),
    *("memory_gb", "compile_s"),
)


def peaks() -> tuple[float, float] | None:
    """FLOP/s and bytes/s of the device; None if it is not in the table."""
    kind = jax.devices()[0].device_kind
    return next((value for name, value in PEAKS.items() if name in kind), None)


def table_configs() -> list[ConfigDict]:
    """A config for each method and model of the flags."""
    return [
        make_config(method, model, _BATCH.value, _LOCAL_CROPS.value)
        for method in _METHODS.value
        for model in _MODELS.value
    ]


def describe(config: ConfigDict) -> dict[str, Any]:
    """The first columns of a row."""
    return {
        "method": config.method,
        "model": model_name(config),
        "batch_size": config.batch_size,
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "jax": jax.__version__,
    }


def plan(compiled: jax.stages.Compiled) -> dict[str, float]:
    """Bytes of a step and of the memory, as XLA planned them."""
    found = {"gb": (compiled.cost_analysis() or {}).get("bytes accessed", 0.0) / 1e9}
    if (memory := compiled.memory_analysis()) is not None:
        total = memory.temp_size_in_bytes + memory.argument_size_in_bytes
        found["memory_gb"] = total / 1e9
    return found


def augment_seconds(training: Training, config: ConfigDict) -> float:
    """Seconds that the augmentation of one batch takes, compiled alone."""
    size = config.data.image_size
    shape = (config.batch_size, 2, size, size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    views = training.recipe.views

    @jax.jit
    def run(keys, images):  # many in one dispatch, which would take longer than they
        return jax.lax.map(lambda key: make_views(key, images, views)[0], keys)

    keys = jax.random.split(jax.random.key(0), 10)
    images = jax.device_put(images)
    jax.block_until_ready(run(keys, images))
    started = time.perf_counter()
    jax.block_until_ready(run(keys, images))
    return (time.perf_counter() - started) / len(keys)


def measure(training: Training, config: ConfigDict, calls: int) -> dict[str, Any]:
    """Time a training that is compiled, with `calls` steps in a dispatch."""
    training.run(max(3, calls))  # fewer than these would be another program
    seconds, waited = [], 0.0
    for _ in range(_ROUNDS.value):
        seconds.append(training.run(_STEPS.value))
        waited += training.waited
    step = statistics.median(seconds)
    pairs = config.batch_size
    return {
        "step_ms": step * 1e3,
        "pairs_per_s": pairs / step,
        "range": [pairs / max(seconds), pairs / min(seconds)],
        "images_per_s": pairs * len(training.recipe.views) / step,
        "waiting": waited / (sum(seconds) * _STEPS.value),
    }


def markdown(row: dict[str, Any]) -> str:
    """One row of the table."""

    def cell(name):
        value = row.get(name)
        if value is None:
            return ""
        if name == "range":
            return f"{value[0]:.0f} to {value[1]:.0f}"
        if name in ("mfu", "waiting", "augment"):
            return f"{value:.1%}"
        if isinstance(value, float):
            return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"
        return str(value)

    return table_row(map(cell, COLUMNS))


def main(argv: list[str]) -> None:
    """Compile, time, and print."""
    del argv
    configs = table_configs() or [_CONFIG.value]
    mesh = make_mesh()
    default = [str(steps_per_call(0))]
    variants = []
    for placement in _PLACEMENTS.value:
        calls = (_CALLS.value or default) if placement == "device" else ["1"]
        variants += [(placement, int(call)) for call in calls]
    if not _OWN_DATA.value:
        for config in configs:
            config.data.store, config.data.split = "emoji", "all"
    images = open_images(configs[0], _IMAGES.value)
    print(f"{describe(configs[0])['device']}, {len(images)} images")
    print(table_head(COLUMNS), flush=True)
    with contextlib.ExitStack() as stack:
        # The trainer's calls find the programs that are compiled ahead here.
        if not jax.config.jax_compilation_cache_dir:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

        def build(config, placement, calls):
            training = stack.enter_context(
                prepare(config, images, mesh, placement, calls)
            )
            started = time.perf_counter()
            compiled = training.feed.lower(training.state, calls).compile()
            row = {"compile_s": time.perf_counter() - started}
            if _JOBS.value > 1:
                row = {}  # not the time of one
            return training, row | plan(compiled)

        wanted = list(itertools.product(configs, variants))
        if _JOBS.value > 1:
            with concurrent.futures.ThreadPoolExecutor(_JOBS.value) as jobs:
                built = list(jobs.map(lambda x: build(x[0], *x[1]), wanted))
        else:  # each in its turn: a compiler at work would disturb the one that is timed
            built = (build(config, *variant) for config, variant in wanted)
        facts = {}
        for (config, (placement, calls)), (training, row) in zip(
            wanted, built, strict=True
        ):
            row |= describe(config) | {"placement": placement, "steps_per_call": calls}
            row |= measure(training, config, calls)
            # The same for each placement.
            if id(config) not in facts:
                flops = count_flops(config, len(images))
                facts[id(config)] = flops, augment_seconds(training, config)
            flops, augment = facts[id(config)]
            row["tflop"] = flops and flops / 1e12
            row["augment"] = augment * 1e3 / row["step_ms"]
            if (limits := peaks()) and row["tflop"]:
                # The work is the whole batch's; the peak and the bytes are one device's.
                compute = row["tflop"] * 1e15 / limits[0] / jax.device_count()
                row["floor_ms"] = max(compute, row["gb"] * 1e12 / limits[1])
                row["mfu"] = compute / row["step_ms"]
            print(markdown(row), flush=True)
            append_json(_OUT.value, row)
            if _TRACE.value:
                name = f"{config.method}_{row['model'].replace(':', '_')}_{placement}"
                path = pathlib.Path(_TRACE.value) / f"{name}_{calls}"
                with jax.profiler.trace(path, **trace_options()):
                    training.run(max(5, calls))
            training.state = None


if __name__ == "__main__":
    app.run(main)
