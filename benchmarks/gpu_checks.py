"""Check on this device that killed runs resume exactly, and how bfloat16 compares.

    python -m benchmarks.gpu_checks --what=resume
    python -m benchmarks.gpu_checks --what=precision --seeds=3

Trains `configs/quickstart.py` by the trainer's own command, into a temporary folder.

resume: a run that is killed half-way and started again has to equal an uninterrupted one to
the bit: all that the last checkpoint holds, and each line of metrics.jsonl but its times.
Exits with 1 if it does not, and says whether two runs that nobody killed differ, too: then the
device's own kernels are not deterministic.

precision: the same steps with activations in bfloat16 and in float32, whose products are not
rounded to TF32 (as a GPU does by default). Prints the loss of the last steps and the kNN
accuracy of each seed, and their paired differences.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from benchmarks.common import table_head, table_row
from sp_jax.train.checkpoint import find_steps
from sp_jax.train.writer import read_metrics

# Nothing here asks for a device before the runs are over: they need it.

TIMED = ("time", "step_ms", "pairs_per_sec", "images_per_sec")
TARGETS = ("knn_category", "knn_subcategory")


def start(workdir: pathlib.Path, *flags: str, **environment: str) -> subprocess.Popen:
    """Start a training in its own process, with its output in a file."""
    words = ["-m", "sp_jax.main", "--config=configs/quickstart.py"]
    words += ["--config.loggers=()"]
    with open(workdir.with_suffix(".log"), "a") as log:
        return subprocess.Popen(
            [sys.executable, *words, f"--workdir={workdir}", *flags],
            stdout=log,
            stderr=log,
            env=os.environ | environment,
        )


def finish(workdir: pathlib.Path, *flags: str, **environment: str) -> None:
    """Train to the end."""
    if start(workdir, *flags, **environment).wait():
        sys.exit(f"error: a run failed.\n{workdir.with_suffix('.log').read_text()}")


def shorten(epochs: float) -> list[str]:
    """Flags of a training with a number of epochs."""
    warm_up = f"--config.optimizer.warmup_epochs={epochs / 8}"
    return [f"--config.epochs={epochs}", warm_up]


def read_lines(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The record of a run, without what depends on the clock."""
    return [
        {k: v for k, v in line.items() if k not in TIMED}
        for line in read_metrics(workdir)
    ]


def final_state(workdir: pathlib.Path) -> dict[str, bytes]:
    """Every array of the last checkpoint, on whatever devices it was written."""
    folder = workdir / "checkpoints"
    folder = folder / str(find_steps(folder)[0]) / "state"
    shapes = ocp.PyTreeCheckpointHandler().metadata(folder).tree
    args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
    with ocp.PyTreeCheckpointer() as reader:
        state = reader.restore(folder, restore_args=args)
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    return {jax.tree_util.keystr(path): bytes(memoryview(x)) for path, x in leaves}


def resume(folder: pathlib.Path, flags: argparse.Namespace) -> None:
    """Compare a run that was killed with one that was not."""
    words = [*shorten(flags.epochs or 2), f"--config.model.width={flags.width}"]
    words += ["--config.checkpoint.every=10", "--config.log_every=5"]
    words += ["--config.evals={}"]
    whole, killed = folder / "whole", folder / "killed"
    finish(whole, *words)
    steps = read_lines(whole)[-1]["step"]
    process = start(killed, *words)
    while process.poll() is None:
        if any(line["step"] > steps / 2 for line in read_lines(killed)):
            process.kill()
        time.sleep(0.02)
    if process.wait() == 0:
        sys.exit("error: the run ended before it could be killed; give more --epochs.")
    finish(killed, *words)
    own, others = final_state(killed), final_state(whole)
    differ = [name for name in others if own.get(name) != others[name]]
    lines = repr(read_lines(killed)) == repr(read_lines(whole))  # NaN is NaN
    print(
        f"{steps} steps, killed after {steps // 2}: {len(others) - len(differ)} of "
        f"{len(others)} arrays equal to the bit, metrics {'equal' if lines else 'differ'}."
    )
    if differ or not lines:
        again = folder / "again"
        finish(again, *words)
        state = final_state(again)
        same = sum(state.get(name) == others[name] for name in others)
        print(
            f"Two uninterrupted runs: {same} of {len(others)} arrays equal to the bit."
        )
        sys.exit(f"error: killed and resumed is not uninterrupted: {differ[:5]}")


def precision(folder: pathlib.Path, flags: argparse.Namespace) -> None:
    """Compare runs in bfloat16 with runs in float32."""
    found: dict[str, list[list[float]]] = {"bfloat16": [], "float32": []}
    print(table_head(["seed", "dtype", "loss", *TARGETS]), flush=True)
    for seed in range(flags.seeds):
        for dtype, rows in found.items():
            workdir = folder / f"{dtype}_{seed}"
            words = [f"--config.seed={seed}", f"--config.dtype={dtype}"]
            words += [f"--config.model.width={flags.width}"]
            words += shorten(flags.epochs) if flags.epochs else []
            finish(workdir, *words, JAX_DEFAULT_MATMUL_PRECISION="highest")
            last: dict[str, float] = {}
            for line in read_lines(workdir):
                last |= line
            names = ("loss", *(f"{target}/accuracy_k20" for target in TARGETS))
            rows.append([last[name] for name in names])
            print(table_row([seed, dtype, *(f"{x:.4f}" for x in rows[-1])]), flush=True)
    differences = np.subtract(found["bfloat16"], found["float32"])
    for name, values in zip(("loss", *TARGETS), differences.T, strict=True):
        of = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
        print(f"bfloat16 - float32, {name}: {np.mean(values):+.4f}{of}")


def main(argv: list[str]) -> None:
    """Train, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--what", choices=["resume", "precision"], required=True)
    add("--seeds", type=int, default=3, help="precision")
    add("--width", type=int, default=64, help="of the ResNet-18")
    add("--epochs", type=float, help="resume: 2; precision: the config's")
    flags = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        {"resume": resume, "precision": precision}[flags.what](
            pathlib.Path(folder), flags
        )


if __name__ == "__main__":
    main(sys.argv[1:])
