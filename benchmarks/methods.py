"""Train every method on the embedded drawings, on semantic and on augmentation pairs.

    python -m benchmarks.methods --seeds=1,2,3 --jobs=2

Runs `configs/METHOD_resnet50.py:quick` (ResNet-18 of width 16, 64 px, 300 steps of 128
pairs; the same budget for all). Each run that is complete gets a line in docs/methods.csv,
and the table of all lines goes into docs/results.md. A run that has its line is not made
again (delete the line to repeat it), one that was killed goes on. Each job is pinned to a
core of its own, so that runs beside each other have the same speed.
"""

import concurrent.futures
import csv
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
_RECORD = flags.DEFINE_string("record", "docs/methods.csv", "A line for each run.")
_RESULTS = flags.DEFINE_string("results", "docs/results.md", "Where the table goes.")

PAIRINGS = {"SP": "semantic", "AP": "augmented"}
COLUMNS = {
    "kNN category": "knn_category/accuracy",
    "kNN subcategory": "knn_subcategory/accuracy",
    "probe subcategory": "probe_subcategory/accuracy",
    "retrieval": "retrieval/top1",
}
START, END = "<!-- methods: begin -->", "<!-- methods: end -->"


Job = tuple[str, str, str]  # method, pairs, seed


def read_record() -> dict[Job, dict[str, str]]:
    """The lines of the record, by run."""
    path = pathlib.Path(_RECORD.value)
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {(x["method"], x["pairs"], x["seed"]): x for x in csv.DictReader(file)}


def write_record(record: dict[Job, dict[str, str]]) -> None:
    """Write the lines in order, so that a change shows as one."""
    rows = [record[job] for job in sorted(record)]
    path = pathlib.Path(_RECORD.value)
    with path.with_suffix(".tmp").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    path.with_suffix(".tmp").replace(path)


def train(job: Job, cores: queue.Queue) -> dict[str, str]:
    """Make one run on a free core, or what is missing of it; its line of the record."""
    method, pairs, seed = job
    workdir = pathlib.Path(_OUT.value) / "_".join(job)
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
                    f"--config.data.pairing={PAIRINGS[pairs]}",
                    f"--config.seed={seed}",
                    f"--workdir={workdir}",
                ],
                stdout=log,
                stderr=log,
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )
    finally:
        cores.put(core)
    if result.returncode:
        raise RuntimeError(pathlib.Path(f"{workdir}.log").read_text().splitlines()[-1])
    text = (workdir / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    # The probe runs at the start and at the end only.
    if sum(COLUMNS["probe subcategory"] in line for line in lines) < 2:
        raise RuntimeError("stopped before its end; the same command goes on")
    return {"method": method, "pairs": pairs, "seed": seed} | summary(lines)


def summary(lines: list[dict]) -> dict[str, str]:
    """What the table needs of a run's metrics."""

    def values(name):
        return [line[name] for line in lines if name in line]

    row = {}
    for title, name in COLUMNS.items():
        measured = values(name)
        row[f"{title} (untrained)"] = f"{measured[0]:.4f}"
        row[title] = f"{measured[-1]:.4f}"
    row["RankMe"] = f"{values('effective_rank')[-1]:.2f}"
    # The time of the steps, without compilation and evaluations.
    minutes = np.mean(values("step_ms")) * max(values("step")) / 60e3
    return row | {"min/run": f"{minutes:.2f}"}


def spread(rows: list[dict], column: str, digits: int = 3) -> str:
    """Mean and sample standard deviation of a column."""
    values = [float(row[column]) for row in rows]
    text = f"{np.mean(values):.{digits}f}"
    return f"{text} ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else text


def make_table(record: dict[Job, dict[str, str]]) -> str:
    """The Markdown table of all runs."""
    names = [*COLUMNS, "RankMe", "min/run"]
    table = [
        f"| method | pairs | seeds | {' | '.join(names)} |",
        "|---" * (len(names) + 3) + "|",
    ]
    for method in methods.NAMES:
        # Of a seed, both pairings start from the same network: count it once.
        untrained = {}
        for pairs in PAIRINGS:
            rows = {
                job[2]: x for job, x in record.items() if job[:2] == (method, pairs)
            }
            if not rows:
                continue
            untrained |= rows
            rows = list(rows.values())
            cells = [spread(rows, name) for name in COLUMNS]
            cells += [spread(rows, "RankMe", 1), spread(rows, "min/run", 1)]
            table.append(f"| {method} | {pairs} | {len(rows)} | {' | '.join(cells)} |")
        if untrained:
            rows = list(untrained.values())
            cells = [spread(rows, f"{name} (untrained)") for name in COLUMNS]
            table.append(
                f"| {method} | untrained | {len(rows)} | {' | '.join(cells)} | | |"
            )
    return "\n".join(table)


def main(argv: list[str]) -> None:
    """Train what is missing, and write the table."""
    del argv
    record = read_record()
    commit = subprocess.check_output(
        ["git", "describe", "--always", "--dirty", "--exclude=*"], text=True
    ).strip()
    jobs = [
        (method, pairs, seed)
        for seed in _SEEDS.value
        for method in _METHODS.value
        for pairs in PAIRINGS
    ]
    jobs = [job for job in jobs if job not in record]
    cores: queue.Queue = queue.Queue()
    for core in sorted(os.sched_getaffinity(0))[: _JOBS.value]:
        cores.put(core)
    with concurrent.futures.ThreadPoolExecutor(cores.qsize()) as pool:
        futures = {pool.submit(train, job, cores): job for job in jobs}
        for future in tqdm(concurrent.futures.as_completed(futures), total=len(jobs)):
            job = futures[future]
            if failure := future.exception():
                tqdm.write(f"{' '.join(job)}: {failure}")
                continue
            record[job] = future.result() | {"commit": commit}
            write_record(record)
    table = make_table(record)
    print(table)
    path = pathlib.Path(_RESULTS.value)
    before, _, rest = path.read_text().partition(START)
    after = rest.partition(END)[2]
    path.write_text(f"{before}{START}\n{table}\n{END}{after}")


if __name__ == "__main__":
    app.run(main)
