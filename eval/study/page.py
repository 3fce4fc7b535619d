"""Write study.html, with claims, numbers, pictures and runs, and study.md, with the tables.

Cells of the tables are texts, or texts with small print and a kind, for the templates of
`eval.pages`.
"""

import csv
import itertools
import pathlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from eval.compare.statistics import by_chance, difference_text, mean_text
from eval.compare.tables import format_csv
from eval.pages import write_page
from eval.study import measure_plots, numbers
from eval.study.numbers import Values
from eval.study.plan import Job, Study
from eval.study.runner import last_words, missing, read_record
from eval.study.untrained import collect_floors
from sp_jax.files import write_text

Rows = list[list[Any]]


def _cell(text: str, small: str = "", kind: str = "") -> dict[str, str]:
    return {"text": text, "small": small, "kind": kind}


def measured(seeds: Iterable[float], paper: float | None, percent: bool) -> dict:
    """A cell with the mean over seeds, the paper's number and the difference."""
    values, digits = list(seeds), 2 if percent else 1
    known = "" if paper is None else f"paper {paper:.{digits}f}"
    if known and values:
        known += f" ({np.mean(values) - paper:+.{digits}f})"
    return _cell(mean_text(values, digits), known)


def make_rows(
    study: Study, values: Values, floors: Values, chances: Mapping[str, float]
) -> Rows:
    """The table: a row for each arm, for untrained networks, and for chance if it is known."""
    factors = list(next(iter(study["arms"].values()))["factors"])
    titles = study["measures"]
    rows = [[*factors, "seeds", *titles]]

    def add(found: Values, key: str, names: Iterable[str], paper: Mapping) -> None:
        cells = [
            measured(found[title][key].values(), paper.get(title), one["percent"])
            for title, one in titles.items()
        ]
        rows.append([*names, max(len(found[title][key]) for title in titles), *cells])

    for name, arm in study["arms"].items():
        add(values, name, arm["factors"].values(), study["paper"].get(name, {}))
    empty = [""] * (len(factors) - 1)
    for label in next(iter(floors.values())):
        add(floors, label, [label, *empty], {})
    if chances:
        cells = [
            measured([chances[x]], None, True) if x in chances else "" for x in titles
        ]
        rows.append(["chance", *empty, "", *cells])
    return rows


def make_claims(study: Study, verdicts: Sequence[numbers.Verdict]) -> Rows:
    """A row for each claim and its verdict, with the paper's number if any claim has one."""
    known = any(claim["paper"] is not None for claim in study["claims"].values())
    rows = [["claim", "measure", "here", *["paper"] * known, "verdict"]]
    for claim, verdict in zip(study["claims"].values(), verdicts, strict=True):
        here, seeds = difference_text(verdict.sum, 2), verdict.sum.seeds
        if seeds > 1:
            here += f", {verdict.agree} of {seeds} seeds"
        terms = " ".join(
            f"{'−' if f < 0 else '+'} {'' if abs(f) == 1 else f'{abs(f):g} × '}"
            f"({measure_plots.name_of(study, arm)})"
            for arm, f in claim["terms"].items()
        )
        bounds = " and ".join(
            f"{sign} {claim[name]:g}"
            for name, sign in (("above", ">"), ("below", "<"))
            if claim[name] is not None
        )
        paper = "" if claim["paper"] is None else f"{claim['paper']:+.2f}"
        said = _cell(claim["text"], f"{terms.removeprefix('+ ')} {bounds}")
        word = _cell(verdict.word, kind=verdict.word.split()[0])
        rows.append([said, claim["measure"], here, *[paper] * known, word])
    return rows


def make_runs(
    study: Study, jobs: Sequence[Job], pool: pathlib.Path, values: Values
) -> Rows:
    """A row for each run, with its cost and its missing commands.

    Only the last start of a command is counted: of a training that was stopped, its end.
    """
    costs = [title for title, one in study["measures"].items() if not one["percent"]]
    rows = [["arm", "seed", *costs, "minutes, last start", "folder", "state"]]
    for job in jobs:
        if not job.commands:  # nothing is measured apart
            continue
        folder = pool / job.folder
        todo, state = missing(job, pool), "complete"
        if todo:
            log = folder / f"{todo[0].name}.log"
            said = f": {last_words(log)[:200]}" if log.is_file() else ""
            state = f"{len(todo)} of {len(job.commands)} commands are missing; next is "
            state += f"{todo[0].name}{said}"
        record = read_record(folder)
        names = [command.name for command in job.commands if command.name in record]
        minutes = sum(record[name]["seconds"] for name in names) / 60
        own = [values[title].get(job.label or job.arm, {}) for title in costs]
        own = [f"{one[job.seed]:.1f}" if job.seed in one else "" for one in own]
        total = f"{minutes:.1f}" if minutes else ""
        seed = "" if job.seed is None else job.seed
        rows.append([job.label or job.arm, seed, *own, total, job.folder, state])
    return rows


def choose_folder(out: pathlib.Path, complete: int, command: str = "") -> pathlib.Path:
    """A folder for a page that replaces no page of more runs, or of another study's file.

    Args:
        out: the preferred folder; the next ones are `out`.2, `out`.3, …
        complete: the number of runs with numbers on the page.
        command: of the study.
    """
    for number in itertools.count(1):
        folder = out.with_name(f"{out.name}.{number}") if number > 1 else out
        table = folder / "study.csv"
        if not table.is_file():
            return folder
        with open(table, encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        before = rows[1][-1] if len(rows) > 1 and "command" in rows[0] else ""
        same = not (before and command) or _file_of(before) == _file_of(command)
        if same and numbers.count_runs(rows) <= complete:
            return folder
    raise AssertionError


def _file_of(command: str) -> str:
    """The file of a study, from its command."""
    files = [x for x in shlex.split(command) if x.startswith("--study=")]
    return str(pathlib.Path(files[0].partition("=")[2]).resolve()) if files else ""


def write(
    study: Study,
    jobs: Sequence[Job],
    pool: pathlib.Path,
    out: pathlib.Path,
    protocols: Mapping[str, str],
    changes: Mapping[str, Any] | None = None,
    warning: str = "",
    command: str = "",
) -> pathlib.Path:
    """Write study.html, study.md, study.csv and the pictures of the complete runs.

    Args:
        study: what is shown.
        jobs: its runs.
        pool: folder of all runs.
        out: the page's folder; another one if that would lose runs (`choose_folder`).
        protocols: of the evaluations.
        changes: what the command line changed, by flag.
        warning: on how the numbers must not be read.
        command: of the study, for study.csv.

    Returns:
        The page.
    """
    values = numbers.collect(study, jobs, pool)
    floors = collect_floors(study, jobs, pool)
    origins = numbers.read_origins(jobs, pool)
    table = numbers.make_csv(study, values, floors, origins, command)
    out = choose_folder(out, numbers.count_runs(table), command)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "study.csv", format_csv(table))
    runs = [job for job in jobs if not job.label]
    done = [job for job in runs if not missing(job, pool)]
    shown, chances = dict(protocols), {}
    for title, measure in study["measures"].items():
        name = measure["of"].partition("/")[0]
        result = None
        if done:
            place = pool / done[0].folder
            result = numbers.read_result(study, done[0], place, name)
        if result:
            shown.setdefault(name, result["protocol"])
            chance = numbers.chance_of(measure, result)
            chances |= {} if chance is None else {title: chance}
    known = {title: values[title] | floors[title] for title in values}
    verdicts = [numbers.judge(claim, known) for claim in study["claims"].values()]
    judged = sum(verdict.sum.seeds > 1 for verdict in verdicts)
    filled = dict(
        title=study["title"],
        about=study["about"],
        changes=[f"--{name}={value}" for name, value in (changes or {}).items()],
        warning=warning,
        state=f"{len(done)} of {len(runs)} runs are complete.",
        claims=make_claims(study, verdicts),
        by_chance=by_chance(judged) if judged > 1 else "",
        rows=make_rows(study, values, floors, chances),
        factors=len(next(iter(study["arms"].values()))["factors"]),
        floors=any(floors.values()),
        pictures=measure_plots.draw(study, done, pool, values, floors, out),
        protocols=shown,
        runs=make_runs(study, jobs, pool, values),
    )
    write_page(out / "study.md", "study.md", **filled)
    return write_page(out / "study.html", "study.html", **filled)
