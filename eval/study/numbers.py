"""The numbers that the runs of a study measured, and the verdicts on its claims."""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eval import results
from eval.compare.runs import Run, find_differences, make_columns, read_run
from eval.compare.statistics import Interval, interval
from eval.study.plan import DETECTION, Job, Study
from eval.study.runner import missing
from sp_jax.errors import UserError
from sp_jax.json_file import read_json
from sp_jax.train.starts import read_starts
from sp_jax.train.writer import read_metrics

# title of a measure -> arm -> seed -> number; the seed None is every one (`plan.Job`)
Values = dict[str, dict[str, dict[int | None, float]]]
ORIGIN = ("commit", "device", "command")  # the last columns of study.csv


def collect(study: Study, jobs: Sequence[Job], pool: pathlib.Path) -> Values:
    """Read the measures of all complete runs, and of no others."""
    values: Values = {
        title: {arm: {} for arm in study["arms"]} for title in study["measures"]
    }
    for job in jobs:
        if job.label or missing(job, pool):
            continue
        for title, measure in study["measures"].items():
            number = read_number(study, job, pool / job.folder, measure)
            if number is not None:
                values[title][job.arm][job.seed] = number
    return values


def find_mixed(jobs: Sequence[Job], pool: pathlib.Path) -> list[str]:
    """Sentences on arms whose complete runs differ in more than their seed.

    This happens if a recipe, or the images of a store, were changed between two seeds.
    """
    runs: dict[str, list[Run]] = {}
    for job in jobs:
        trained = (pool / job.folder / "config.json").is_file()
        if trained and not job.label and not missing(job, pool):
            runs.setdefault(job.arm, []).append(read_run(pool / job.folder))
    found = []
    for arm, some in runs.items():
        columns = make_columns(some)
        differ = find_differences([column.runs[0].facts for column in columns])
        if len(columns) > 1:
            found.append(
                f"The runs of {arm} differ in more than their seed: in "
                f"{', '.join(row[0] for row in differ)}. Their mean is of no one recipe: move "
                "the older ones away, or choose another --workdir."
            )
    return found


def read_result(
    study: Study, job: Job, folder: pathlib.Path, name: str, untrained: bool = False
) -> dict[str, Any] | None:
    """The newest result NAME of a run, or of its detection NAME; None if there is none.

    Of an evaluation of the study, only a result on its images and with its options.
    """
    commands = {command.name: command for command in job.commands}
    options = dict(study["evaluations"].get(name, {}))
    asked = {}
    if options.pop("type", DETECTION) != DETECTION and name in commands:
        asked = {"images": commands[name].images, "options": options}
    found = results.read_newest(folder, name, untrained=untrained, **asked)
    if found is None and not untrained:
        return results.read_newest(folder / "detection" / name, "detection")
    return found


def read_number(
    study: Study,
    job: Job,
    folder: pathlib.Path,
    measure: Mapping[str, Any],
    untrained: bool = False,
) -> float | None:
    """The number of a measure in a run's folder; with `untrained` for the untrained network.

    Raises:
        UserError: the result has no such number.
    """
    name, _, key = measure["of"].partition("/")
    if name == "run":
        number = None if untrained else _read_run(folder, key)
    else:
        result = read_result(study, job, folder, name, untrained)
        if result and key not in result["result"]:
            raise UserError(
                f"{folder}: the result {name} has no {key!r}, but "
                f"{', '.join(sorted(result['result']))}: correct the measure "
                f"{measure['of']!r} of the study."
            )
        number = result["result"][key] if result else None
    return 100 * number if number is not None and measure["percent"] else number


def _read_run(folder: pathlib.Path, key: str) -> float | None:
    if key == "precision":  # of the pairs that were mined for it
        table = folder / "table.json"
        return read_json(table).get(key) if table.is_file() else None
    lines = [line for line in read_metrics(folder) if "step_ms" in line]
    if not lines:
        return None
    if key == "images_per_sec":
        return float(np.median([line[key] for line in lines]))
    minutes = np.mean([line["step_ms"] for line in lines]) * lines[-1]["step"] / 6e4
    return float(minutes / 60 if key == "hours" else minutes)


def chance_of(measure: Mapping[str, Any], result: Mapping[str, Any]) -> float | None:
    """The value of a measure by chance, from a result; None if the result has none."""
    _, _, key = measure["of"].partition("/")
    chances = [
        number.chance
        for number in result["headline"]
        if number.name == key or number.name.startswith(f"{key}_k")  # kNN's by its k
    ]
    if key.endswith("accuracy"):  # invariances have it in their result
        chances.append(result["result"].get("chance"))
    found = next((chance for chance in chances if chance is not None), None)
    return 100 * found if found is not None and measure["percent"] else found


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
    by_arm = {arm: values[claim["measure"]].get(arm, {}) for arm in claim["terms"]}
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
    found = interval(sums)
    if found.seeds < 2:
        return Verdict(found, agree, "one seed" if sums else "no runs")
    holds = lower < found.low and found.high < upper
    fails = found.high < lower or found.low > upper
    word = "holds" if holds else "does not hold" if fails else "undecided"
    return Verdict(found, agree, word)


# arm, or label of an untrained network, and seed -> commit and device of the run
Origins = dict[tuple[str, int | None], tuple[str, str]]


def read_origins(jobs: Sequence[Job], pool: pathlib.Path) -> Origins:
    """The code and the device that trained each run, if they are known."""
    found = {}
    for job in jobs:
        starts = read_starts(pool / (job.after if job.label else job.folder))
        commits = [start["versions"]["sp_jax"] for start in starts]
        devices = [start["device"] for start in starts]
        words = ["; ".join(dict.fromkeys(texts)) for texts in (commits, devices)]
        found[job.label or job.arm, job.seed] = tuple(words)
    return found


def make_csv(
    study: Study, values: Values, floors: Values, origins: Origins, command: str
) -> list[list[Any]]:
    """study.csv: a line for each run and measure, with the paper's number and the origin.

    Lines of untrained networks come last; they have no factors. The command is the study's.
    """
    factors = list(next(iter(study["arms"].values()))["factors"])
    rows = [["arm", *factors, "seed", "measure", "value", "paper", *ORIGIN]]
    for found in (values, floors):
        for title, arms in found.items():
            for name, seeds in arms.items():
                arm = study["arms"].get(name, {"factors": dict.fromkeys(factors, "")})
                known = list(arm["factors"].values())
                paper = study["paper"].get(name, {}).get(title, "")
                for seed, value in sorted(seeds.items()):
                    origin = (*origins.get((name, seed), ("", "")), command)
                    number = round(value, 6)
                    rows.append([name, *known, seed, title, number, paper, *origin])
    return rows


def count_runs(rows: Iterable[Sequence[Any]]) -> int:
    """The number of runs in a study.csv, without untrained networks."""
    names, *lines = rows
    arm, seed = names.index("arm"), names.index("seed")
    runs = {(line[arm], line[seed]) for line in lines}
    return len([name for name, _ in runs if not name.startswith("untrained")])
