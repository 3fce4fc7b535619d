"""study.html: claims, numbers, pictures and runs in one file; study.md: the tables alone.

Cells of the tables are texts, or texts with small print and a kind, as the templates of
`eval.pages` take them.
"""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from eval.pages import write_page
from eval.runs import mean_text
from eval.study import measure_plots, numbers
from eval.study.numbers import Values
from eval.study.plan import Job, Study
from eval.study.runner import last_words, missing, read_record

Rows = list[list[Any]]


def _cell(text: str, small: str = "", kind: str = "") -> dict[str, str]:
    return {"text": text, "small": small, "kind": kind}


def measured(seeds: Iterable[float], paper: float | None, percent: bool) -> dict:
    """The cell of some seeds' mean, and the paper's number with the difference."""
    values, digits = list(seeds), 2 if percent else 1
    known = "" if paper is None else f"paper {paper:.{digits}f}"
    if known and values:
        known += f" ({np.mean(values) - paper:+.{digits}f})"
    return _cell(mean_text(values, digits), known)


def make_rows(study: Study, values: Values) -> Rows:
    """The table: a row for each arm."""
    factors = list(next(iter(study["arms"].values()))["factors"])
    rows = [[*factors, "seeds", *study["measures"]]]
    for name, arm in study["arms"].items():
        paper = study["paper"].get(name, {})
        cells = [
            measured(values[title][name].values(), paper.get(title), measure["percent"])
            for title, measure in study["measures"].items()
        ]
        seeds = max(len(values[title][name]) for title in study["measures"])
        rows.append([*arm["factors"].values(), seeds, *cells])
    return rows


def make_claims(study: Study, values: Values) -> Rows:
    """The claims, judged: a row for each, with the paper's number if any claim has one."""
    known = any(claim["paper"] is not None for claim in study["claims"].values())
    rows = [["claim", "measure", "here", *["paper"] * known, "verdict"]]
    for claim in study["claims"].values():
        verdict = numbers.judge(claim, values)
        here = f"{verdict.mean:+.2f}" if verdict.seeds else ""
        if verdict.seeds > 1:
            here += f" [{verdict.low:+.2f}, {verdict.high:+.2f}]"
            here += f", {verdict.agree} of {verdict.seeds} seeds"
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
    """The runs: a row for each, with what it cost and what of it is missing."""
    costs = [title for title, one in study["measures"].items() if not one["percent"]]
    rows = [["arm", "seed", *costs, "minutes, all", "folder", "state"]]
    for job in jobs:
        folder = pool / job.folder
        todo, state = missing(job, pool), "complete"
        if todo:
            log = folder / f"{todo[0].name}.log"
            said = f": {last_words(log)[:200]}" if log.is_file() else ""
            state = f"{len(todo)} of {len(job.commands)} commands are missing, next is "
            state += f"{todo[0].name}{said}"
        minutes = sum(one["seconds"] for one in read_record(folder).values()) / 60
        own = [values[title][job.arm].get(job.seed) for title in costs]
        own = ["" if cost is None else f"{cost:.1f}" for cost in own]
        total = f"{minutes:.1f}" if minutes else ""
        rows.append([job.arm, job.seed, *own, total, job.folder, state])
    return rows


def write(
    study: Study,
    jobs: Sequence[Job],
    pool: pathlib.Path,
    out: pathlib.Path,
    protocols: Mapping[str, str],
) -> pathlib.Path:
    """Write study.html, study.md, study.csv and the pictures of what is there so far.

    The folder is `out`; `protocols` are those of the evaluations. Returns the page.
    """
    out.mkdir(parents=True, exist_ok=True)
    values = numbers.collect(study, jobs, pool)
    numbers.write_csv(out / "study.csv", study, values)
    done = [job for job in jobs if not missing(job, pool)]
    shown = dict(protocols)
    for measure in study["measures"].values():
        name = measure["of"].partition("/")[0]
        if done and name not in shown and name != "run":
            result = numbers.read_result(pool / done[0].folder, name)
            shown |= {name: result["protocol"]} if result else {}
    filled = dict(
        title=study["title"],
        about=study["about"],
        state=f"{len(done)} of {len(jobs)} runs are complete.",
        claims=make_claims(study, values),
        rows=make_rows(study, values),
        factors=len(next(iter(study["arms"].values()))["factors"]),
        pictures=measure_plots.draw(study, done, pool, values, out),
        protocols=shown,
        runs=make_runs(study, jobs, pool, values),
    )
    write_page(out / "study.md", "study.md", **filled)
    return write_page(out / "study.html", "study.html", **filled)
