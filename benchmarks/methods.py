"""Train every method on the embedded drawings, on semantic and on augmentation pairs.

    python -m benchmarks.methods --seeds=1,2,3 --jobs=2

Runs `configs/METHOD_resnet50.py:quick` (ResNet-18 of width 16, 64 px, 300 steps of 128
pairs; the same budget for all) and writes the table into docs/results.md. A run that is
complete is not made again, one that was killed goes on. Each job is pinned to a core of its
own, so that runs beside each other have the same speed.
"""

import concurrent.futures
import json
import os
import pathlib
import queue
import subprocess
import sys

import numpy as np
from absl import app, flags
from tqdm import tqdm

from sp_jax import methods

_SEEDS = flags.DEFINE_list(
    "seeds", ["1", "2", "3"], "Seeds; the recipes were chosen with seed 0."
)
_METHODS = flags.DEFINE_list("methods", list(methods.NAMES), "Methods.")
_JOBS = flags.DEFINE_integer("jobs", 2, "Runs at a time.", lower_bound=1)
_OUT = flags.DEFINE_string("out", "runs/methods", "Folder of the runs.")
_RESULTS = flags.DEFINE_string("results", "docs/results.md", "Where the table goes.")

PAIRINGS = {"SP": "semantic", "AP": "augmented"}
COLUMNS = {
    "kNN category": "knn_category/accuracy",
    "kNN subcategory": "knn_subcategory/accuracy",
    "probe subcategory": "probe_subcategory/accuracy",
    "retrieval": "retrieval/top1",
}
START, END = "<!-- methods: begin -->", "<!-- methods: end -->"


def folder(method: str, pairing: str, seed: str) -> pathlib.Path:
    """The workdir of a run."""
    return pathlib.Path(_OUT.value) / f"{method}_{pairing}_{seed}"


def read_lines(workdir: pathlib.Path) -> list[dict]:
    """The lines of a run's record; none if it has not started."""
    path = workdir / "metrics.jsonl"
    return (
        [json.loads(s) for s in path.read_text().splitlines()] if path.exists() else []
    )


def is_complete(workdir: pathlib.Path) -> bool:
    """Whether every evaluation was made after the last step."""
    lines = read_lines(workdir)
    # The probe runs at the start and at the end only.
    end = max(
        (x["step"] for x in lines if COLUMNS["probe subcategory"] in x), default=0
    )
    measured = {name for line in lines if line["step"] == end for name in line}
    return end > 0 and measured >= set(COLUMNS.values())


def train(job: tuple[str, str, str], cores: queue.Queue) -> str | None:
    """Make one run on a free core; the last line of its log if it failed."""
    method, pairing, seed = job
    workdir = folder(*job)
    if is_complete(workdir):
        return None
    core = cores.get()
    try:
        workdir.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{workdir}.log", "a") as log:
            result = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "sp_jax.main",
                    f"--config=configs/{method}_resnet50.py:quick",
                    f"--config.data.pairing={PAIRINGS[pairing]}",
                    f"--config.seed={seed}",
                    f"--workdir={workdir}",
                ],
                stdout=log,
                stderr=log,
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )
        if result.returncode:
            return pathlib.Path(f"{workdir}.log").read_text().splitlines()[-1]
    finally:
        cores.put(core)
    return None


def values(lines: list[dict], name: str) -> list[float]:
    """All values of a metric, that of the untrained network first."""
    return [line[name] for line in lines if name in line]


def spread(values: list[float], digits: int = 3) -> str:
    """Mean and sample standard deviation."""
    text = f"{np.mean(values):.{digits}f}"
    return f"{text} ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else text


def make_table() -> str:
    """The Markdown table of all complete runs."""
    names = [*COLUMNS, "RankMe", "min/run"]
    rows = [
        f"| method | pairs | seeds | {' | '.join(names)} |",
        "|---" * (len(names) + 3) + "|",
    ]
    for method in methods.NAMES:
        untrained = {name: [] for name in COLUMNS.values()}
        for pairing in PAIRINGS:
            runs = [folder(method, pairing, seed) for seed in _SEEDS.value]
            runs = [read_lines(run) for run in runs if is_complete(run)]
            if not runs:
                continue
            cells = []
            for name in COLUMNS.values():
                cells.append(spread([values(run, name)[-1] for run in runs]))
                # Of a seed, both pairings start from the same network: count it once.
                first = [values(run, name)[0] for run in runs]
                untrained[name] = max(untrained[name], first, key=len)
            cells.append(spread([values(r, "effective_rank")[-1] for r in runs], 1))
            cells.append(f"{np.mean([minutes(r) for r in runs]):.1f}")
            rows.append(f"| {method} | {pairing} | {len(runs)} | {' | '.join(cells)} |")
        if any(untrained.values()):
            cells = [spread(measured) for measured in untrained.values()]
            rows.append(f"| {method} | untrained | | {' | '.join(cells)} | | |")
    return "\n".join(rows)


def minutes(lines: list[dict]) -> float:
    """Time of the steps, without compilation and evaluations."""
    steps = max(line["step"] for line in lines)
    return np.mean([x["step_ms"] for x in lines if "step_ms" in x]) * steps / 60e3


def main(argv: list[str]) -> None:
    """Train what is missing, and write the table."""
    del argv
    jobs = [
        (method, pairing, seed)
        for seed in _SEEDS.value
        for method in _METHODS.value
        for pairing in PAIRINGS
    ]
    cores: queue.Queue = queue.Queue()
    for core in sorted(os.sched_getaffinity(0))[: _JOBS.value]:
        cores.put(core)
    with concurrent.futures.ThreadPoolExecutor(cores.qsize()) as pool:
        futures = {pool.submit(train, job, cores): job for job in jobs}
        for future in tqdm(concurrent.futures.as_completed(futures), total=len(jobs)):
            if failure := future.result():
                tqdm.write(f"{' '.join(futures[future])}: {failure}")
    table = make_table()
    print(table)
    path = pathlib.Path(_RESULTS.value)
    before, _, rest = path.read_text().partition(START)
    after = rest.partition(END)[2]
    path.write_text(f"{before}{START}\n{table}\n{END}{after}")


if __name__ == "__main__":
    app.run(main)
