"""What the runs of a study measured, and what that says of its claims."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from eval import results
from eval.runs import format_csv
from eval.study.plan import Job, Study
from eval.study.runner import missing
from sp_jax.files import write_text
from sp_jax.train.writer import read_metrics

# title of a measure -> arm -> seed -> number; the seed None is every one (`plan.Job`)
Values = dict[str, dict[str, dict[int | None, float]]]
CONFIDENCE = 0.95


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
    """eval/NAME.json of a run, or of its detection NAME; None where there is none."""
    for path in (f"eval/{name}.json", f"detection/{name}/eval/detection.json"):
        if (folder / path).is_file():
            return results.read_result(folder / path)
    return None


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
        mean: of the sum of its terms, over the seeds that all of its arms have.
        low: end of its 95 % confidence interval (Student's t); NaN for one seed.
        high: the other end.
        seeds: number of seeds.
        agree: how many of them are on the claim's side, each by itself.
        word: "holds", "does not hold" (the whole interval is on that side), "undecided",
            "one seed", or "no runs".
    """

    mean: float
    low: float
    high: float
    seeds: int
    agree: int
    word: str


def judge(claim: Mapping[str, Any], values: Values) -> Verdict:
    """Compare the sum of a claim's terms with its bound, seed by seed."""
    by_arm = {arm: values[claim["measure"]][arm] for arm in claim["terms"]}
    of_seeds = [set(one) for one in by_arm.values() if None not in one]
    seeds = sorted(set.intersection(*of_seeds)) if of_seeds else []
    ready = {arm: one[None] for arm, one in by_arm.items() if None in one}
    by_arm |= {arm: dict.fromkeys(seeds, value) for arm, value in ready.items()}
    sums = [
        sum(factor * by_arm[arm][seed] for arm, factor in claim["terms"].items())
        for seed in seeds
    ]
    lower = -np.inf if claim["above"] is None else claim["above"]
    upper = np.inf if claim["below"] is None else claim["below"]
    agree = sum(lower < one < upper for one in sums)
    mean = float(np.mean(sums)) if sums else np.nan
    if len(sums) < 2:
        word = "one seed" if sums else "no runs"
        return Verdict(mean, np.nan, np.nan, len(sums), agree, word)
    error = float(np.std(sums, ddof=1)) / len(sums) ** 0.5
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(sums) - 1)) * error
    low, high = mean - half, mean + half
    holds, fails = lower < low and high < upper, high < lower or low > upper
    word = "holds" if holds else "does not hold" if fails else "undecided"
    return Verdict(mean, low, high, len(sums), agree, word)


def write_csv(path: pathlib.Path, study: Study, values: Values) -> None:
    """A line for each run and measure, and the paper's numbers beside."""
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
    write_text(path, format_csv(rows))
