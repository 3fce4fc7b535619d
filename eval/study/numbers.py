"""What the runs of a study measured, and what that says of its claims."""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eval import results
from eval.compare.statistics import Interval, interval
from eval.study.plan import Job, Study
from eval.study.runner import missing
from sp_jax.train.writer import read_metrics

# title of a measure -> arm -> seed -> number
Values = dict[str, dict[str, dict[int, float]]]


def collect(study: Study, jobs: Sequence[Job], pool: pathlib.Path) -> Values:
    """Read the measures of all runs that are complete; of no other one."""
    complete = [job for job in jobs if not missing(job, pool)]
    values: Values = {}
    for title, measure in study["measures"].items():
        values[title] = {arm: {} for arm in study["arms"]}
        scale = 100 if measure["percent"] else 1
        for job in complete:
            number = _read(pool / job.folder, measure["of"])
            if number is not None:
                values[title][job.arm][job.seed] = scale * number
    return values


def read_result(folder: pathlib.Path, name: str) -> dict[str, Any] | None:
    """The newest result NAME of a run, or that of its detection NAME; None: there is none."""
    detection = folder / "detection" / name
    return results.read_newest(folder, name) or results.read_newest(
        detection, "detection"
    )


def _read(folder: pathlib.Path, of: str) -> float | None:
    name, _, key = of.partition("/")
    if name != "run":
        result = read_result(folder, name)
        return None if result is None else result["result"].get(key)
    lines = [line for line in read_metrics(folder) if "step_ms" in line]
    if not lines:
        return None
    if key == "images_per_sec":
        return float(np.median([line[key] for line in lines]))
    minutes = np.mean([line["step_ms"] for line in lines]) * lines[-1]["step"] / 6e4
    return float(minutes / 60 if key == "hours" else minutes)


class Verdict(NamedTuple):
    """A claim, judged.

    Attributes:
        sum: of its terms, over the seeds that all of its arms have.
        agree: how many of them are on the claim's side, each by itself.
        word: "holds", "does not hold" (the whole interval is on that side), "undecided",
            "one seed", or "no runs".
    """

    sum: Interval
    agree: int
    word: str


def judge(claim: Mapping[str, Any], values: Values) -> Verdict:
    """Compare the sum of a claim's terms with its bound, seed by seed."""
    by_arm = {arm: values[claim["measure"]][arm] for arm in claim["terms"]}
    sums = [
        sum(factor * by_arm[arm][seed] for arm, factor in claim["terms"].items())
        for seed in sorted(set.intersection(*map(set, by_arm.values())))
    ]
    lower = -np.inf if claim["above"] is None else claim["above"]
    upper = np.inf if claim["below"] is None else claim["below"]
    agree = sum(lower < one < upper for one in sums)
    found = interval(sums)
    if found.seeds < 2:
        return Verdict(found, agree, "one seed" if sums else "no runs")
    holds = lower < found.low and found.high < upper
    fails = found.high < lower or found.low > upper
    word = "holds" if holds else "does not hold" if fails else "undecided"
    return Verdict(found, agree, word)


def make_csv(study: Study, values: Values) -> list[list[Any]]:
    """study.csv: a line for each run and measure, and the paper's numbers beside."""
    factors = list(next(iter(study["arms"].values()))["factors"])
    rows = [["arm", *factors, "seed", "measure", "value", "paper"]]
    for title, arms in values.items():
        for arm, seeds in arms.items():
            known = list(study["arms"][arm]["factors"].values())
            paper = study["paper"].get(arm, {}).get(title, "")
            rows += [
                [arm, *known, seed, title, round(value, 6), paper]
                for seed, value in sorted(seeds.items())
            ]
    return rows


def count_runs(rows: Iterable[Sequence[Any]]) -> int:
    """How many runs have numbers in a study.csv."""
    names, *lines = rows
    arm, seed = names.index("arm"), names.index("seed")
    return len({(line[arm], line[seed]) for line in lines})
