"""Whole trainings here and in PyTorch with lightly: do they reach the same numbers?

    python -m benchmarks.twins --methods=simclr,vicreg,byol,dino --seeds=3 \
        --store=folder:CIFAR10 --out=twins

Both sides train the recipe of `benchmarks/twins_recipes.py` on the same images for as many
steps: this project by its own trainer, PyTorch by `benchmarks.twins_torch`. One run at a time,
each in a process of its own. `OUT/METHOD_SIDE_SEED.json` is a run that is finished, so the same
command goes on after a kill; ours goes on from its checkpoint. Writes `twins.csv`, `twins.md`
and `twins.png`, anew after each run.

The seeds of the two sides have nothing in common: what is compared are two samples, by Welch's
t with a 95 % interval.
"""

import argparse
import csv
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import table_head, table_row
from benchmarks.peers import installed
from benchmarks.twins_recipes import METHODS, WARMUP
from sp_jax.train.writer import read_metrics

# No jax here before the runs are over.

PROGRAMS = {"sp_jax": "sp_jax.main", "torch": "benchmarks.twins_torch"}  # by side
SIDES = tuple(PROGRAMS)
# What is compared: its name in a record, its title, and what it is multiplied by.
NUMBERS = {"loss": ("final loss", 1), "knn/accuracy_k20": ("kNN, %", 100)}
COLUMNS = ("method", "number", *SIDES, "difference", "95 % interval", "verdict")
RECIPES = "benchmarks/twins_recipes.py"


class Difference(NamedTuple):
    """Our mean minus PyTorch's, with its 95 % confidence interval and a verdict."""

    mean: float
    low: float
    high: float
    verdict: str


def compare(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """Two samples of seeds that have nothing in common, by Welch's t."""
    from scipy import stats

    mean = float(np.mean(ours) - np.mean(theirs))
    if min(len(ours), len(theirs)) < 2:
        return Difference(mean, np.nan, np.nan, "too few seeds")
    low, high = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    word = "as far apart as seeds" if low <= 0 <= high else "further apart than seeds"
    return Difference(mean, float(low), float(high), word)


def command(side: str, method: str, seed: int, flags: argparse.Namespace) -> list[str]:
    """The command that trains one side once; both sides have the same flags."""
    out = flags.out / f"{method}_{side}_{seed}"
    words = ["-m", PROGRAMS[side], f"--config={RECIPES}:{method}", f"--workdir={out}"]
    words += [f"--config.seed={seed}", f"--config.data.store={flags.store}"]
    words += [f"--config.evals.knn.dataset={flags.store}"]
    if flags.epochs:
        words += [f"--config.epochs={flags.epochs}"]
        words += [f"--config.optimizer.warmup_epochs={WARMUP * flags.epochs}"]
    return words


def read_record(folder: pathlib.Path) -> dict[str, list[list[float]]]:
    """[step, value] of each number of a run, in order."""
    found: dict[str, list[list[float]]] = {name: [] for name in (*NUMBERS, "step_ms")}
    for line in read_metrics(folder):
        for name in found.keys() & line.keys():
            found[name].append([line["step"], line[name]])
    return found


def train(side: str, method: str, seed: int, flags: argparse.Namespace) -> None:
    """Make one run, unless it exists."""
    done = flags.out / f"{method}_{side}_{seed}.json"
    if done.is_file():
        return
    began = time.monotonic()
    with open(done.with_suffix(".log"), "a") as log:
        words = [sys.executable, *command(side, method, seed, flags)]
        code = subprocess.run(words, stdout=log, stderr=log, check=False).returncode
    if code:
        sys.exit(f"error: {done.stem} failed with code {code}; see {log.name}.")
    run = {"minutes": (time.monotonic() - began) / 60}
    run |= read_record(done.with_suffix(""))
    part = done.with_suffix(".part")
    part.write_text(json.dumps(run))
    os.replace(part, done)
    print(f"{done.stem}: {run['minutes']:.1f} minutes", flush=True)


Runs = dict[tuple[str, str], dict[int, dict[str, Any]]]  # (method, side) -> seed -> run


def read_runs(out: pathlib.Path) -> Runs:
    """All finished runs."""
    found: Runs = {}
    for path in sorted(out.glob("*_*_*.json")):
        method, rest = path.stem.split("_", 1)
        side, seed = rest.rsplit("_", 1)
        found.setdefault((method, side), {})[int(seed)] = json.loads(path.read_text())
    return found


def make_table(runs: Runs) -> str:
    """The last value of each number on both sides, in Markdown."""
    lines, verdicts = [table_head(COLUMNS)], []
    for method in dict.fromkeys(method for method, _ in runs):
        for name, (title, factor) in NUMBERS.items():
            samples = [
                [
                    factor * run[name][-1][1]
                    for run in runs.get((method, side), {}).values()
                ]
                for side in SIDES
            ]
            if not all(samples):
                continue
            found = compare(*samples)
            verdicts.append(found.verdict)
            digits = 2 if factor == 100 else 3
            cells = [
                f"{np.mean(x):.{digits}f} ± {np.std(x, ddof=min(1, len(x) - 1)):.{digits}f}"
                for x in samples
            ]
            interval = ""
            if np.isfinite(found.low):
                interval = f"[{found.low:+.{digits}f}, {found.high:+.{digits}f}]"
            cells += [f"{found.mean:+.{digits}f}", interval, found.verdict]
            lines.append(table_row([method, title, *cells]))
    seeds = " or ".join(map(str, sorted({len(seeds) for seeds in runs.values()})))
    chance = (
        f"{0.05 * len(verdicts):.2g} of {len(verdicts)} would be further by chance."
    )
    return "\n".join([*lines, "", f"Seeds a side: {seeds}. About {chance}", ""])


def write_csv(runs: Runs, path: pathlib.Path) -> None:
    """Each value of each curve."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["method", "side", "seed", "number", "step", "value"])
        for (method, side), seeds in runs.items():
            for seed, run in seeds.items():
                for name in NUMBERS:
                    for step, value in run[name]:
                        row = [method, side, seed, name, step, f"{value:.6g}"]
                        writer.writerow(row)


def draw(runs: Runs, path: pathlib.Path) -> None:
    """The curves of both sides in the same axes, with a column for each method."""
    from eval.plots.figure import legend_above, make_panels, save_figure

    methods = list(dict.fromkeys(method for method, _ in runs))
    figure, axes = make_panels(len(NUMBERS) * len(methods), len(methods), (3.2, 2.4))
    for row, (name, (title, factor)) in enumerate(NUMBERS.items()):
        for column, method in enumerate(methods):
            axis = axes[row, column]
            for side, colour in zip(SIDES, ("C0", "C1"), strict=True):
                for run in runs.get((method, side), {}).values():
                    steps, values = np.array(run[name]).T
                    axis.plot(steps, factor * values, colour, lw=1, alpha=0.8)
            axis.set_title(f"{method}: {title.removeprefix('final ')}", fontsize=9)
            axis.set_xlabel("step", fontsize=8)
    legend_above(figure, ["sp_jax", "PyTorch, lightly"])
    save_figure(figure, path)


def report(out: pathlib.Path) -> str:
    """Write the table, the CSV and the figure of the finished runs."""
    runs = read_runs(out)
    table = make_table(runs)
    (out / "twins.md").write_text(table)
    write_csv(runs, out / "twins.csv")
    draw(runs, out / "twins.png")
    return table


def main(argv: list[str]) -> None:
    """Make all runs that are missing, and report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--methods", default=",".join(METHODS), help=",".join(METHODS))
    add("--seeds", type=int, default=3, help="number of seeds of each side")
    add("--store", required=True, help="CIFAR-10, such as folder:DIR")
    add("--epochs", type=float, help="epochs of the 20,000 images, 3 by default")
    add("--out", type=pathlib.Path, required=True, help="folder of the runs")
    flags = parser.parse_args(argv)
    methods = flags.methods.split(",")
    for method in methods:
        if method not in METHODS:
            parser.error(f"unknown method {method!r}: choose from {', '.join(METHODS)}")
    if len(installed(["lightly"])) == 0:
        sys.exit("error: install requirements-test.txt, which has PyTorch and lightly.")
    flags.out.mkdir(parents=True, exist_ok=True)
    # Seed by seed, so that what is there when it is stopped is of all methods.
    for seed in range(flags.seeds):
        for method in methods:
            for side in SIDES:
                train(side, method, seed, flags)
            report(flags.out)
    print(report(flags.out))


if __name__ == "__main__":
    main(sys.argv[1:])
