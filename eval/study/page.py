"""study.html: claims, numbers, pictures and runs in one file; study.md: the tables alone."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import numpy as np

from eval import pictures
from eval.results import versions
from eval.runs import mean_text
from eval.study import figures, numbers
from eval.study.plan import Job
from eval.study.runner import last_words, missing, read_record
from sp_jax.files import write_text

_PAGE = jinja2.Template(
    """<!doctype html>
<html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
 body { font: 16px/1.5 system-ui, sans-serif; max-width: 92rem; margin: 2rem auto;
        padding: 0 1rem; color: #222 }
 p, li { max-width: 60rem } .wide { overflow-x: auto } img { max-width: 100% }
 table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0 }
 th, td { padding: .2rem 1rem .2rem 0; text-align: left; vertical-align: top }
 thead th { border-bottom: 2px solid #222 } tbody tr { border-bottom: 1px solid #eee }
 .number { text-align: right; white-space: nowrap } small { color: #666 }
 .holds { color: #17692b } .does { color: #a12626 } .undecided, .one, .no { color: #777 }
 code { background: #f4f4f4 } details { margin: 1rem 0 }
</style>
<h1>{{ title }}</h1>
<p>{{ about }}</p>
<p><small>{{ state }} Mean ± sample standard deviation over seeds.</small></p>
{% if claims %}<h2>What was claimed</h2>
<div class="wide"><table><thead><tr><th>claim</th><th>measure</th>
<th class="number">here</th>{% if known %}<th class="number">paper</th>{% endif %}
<th>verdict</th></tr></thead>
{% for row in claims %}<tr><td>{{ row.text }}<br><small>{{ row.sum }}</small></td>
<td>{{ row.measure }}</td><td class="number">{{ row.here }}</td>
{% if known %}<td class="number">{{ row.paper }}</td>{% endif %}
<td class="{{ row.word.split()[0] }}">{{ row.word }}</td></tr>{% endfor %}</table></div>
<p><small>The difference in points, with its 95 % confidence interval over the seeds
(Student's t, differences seed by seed), and how many seeds are on the claim's side. A claim
holds if the whole interval is on its side, and does not hold if none of it is.
</small></p>{% endif %}
<h2>Numbers</h2>
<div class="wide"><table><thead><tr>{% for name in factors %}<th>{{ name }}</th>{% endfor %}
<th class="number">seeds</th>{% for name in measures %}<th class="number">{{ name }}</th>
{% endfor %}</tr></thead>
{% for row in rows %}<tr>{% for name in row.factors %}<td>{{ name }}</td>{% endfor %}
<td class="number">{{ row.seeds }}</td>{% for cell in row.cells %}
<td class="number">{{ cell.text }}{% if cell.paper %}<br><small>{{ cell.paper }}</small>
{% endif %}</td>{% endfor %}</tr>{% endfor %}</table></div>
{% for title, picture in figures %}<h2>{{ title }}</h2>
<img src="{{ picture }}" alt="{{ title }}">{% endfor %}
{% if protocols %}<h2>Protocols</h2><ul>{% for name, text in protocols %}
<li><small><b>{{ name }}</b>: {{ text }}</small></li>{% endfor %}</ul>{% endif %}
<details><summary>Runs</summary><div class="wide"><table><thead><tr><th>arm</th>
<th class="number">seed</th>{% for name in costs %}<th class="number">{{ name }}</th>
{% endfor %}<th class="number">minutes, all</th><th>folder</th><th>state</th></tr></thead>
{% for run in runs %}<tr><td>{{ run.arm }}</td><td class="number">{{ run.seed }}</td>
{% for text in run.costs %}<td class="number">{{ text }}</td>{% endfor %}
<td class="number">{{ run.minutes }}</td><td><code>{{ run.folder }}</code></td>
<td>{{ run.state }}</td></tr>{% endfor %}</table></div></details>
<p><small>{{ versions }}</small></p>
</html>
""",
    autoescape=True,
)
# The same tables, to be pasted where Markdown is read.
_MARKDOWN = jinja2.Template(
    """# {{ title }}

{{ about }}

{{ state }} Mean ± sample standard deviation over seeds.
{% if claims %}
| claim | measure | here |{{ " paper |" if known }} verdict |
|---|---|---|---|{{ "---|" if known }}
{% for row in claims %}| {{ row.text }} | {{ row.measure }} | {{ row.here }} |
{%- if known %} {{ row.paper }} |{% endif %} {{ row.word }} |
{% endfor %}{% endif %}
| {{ (factors + ["seeds"] + measures) | join(" | ") }} |
|{{ "---|" * (factors + ["seeds"] + measures) | length }}
{% for row in rows %}| {{ (row.factors + [row.seeds]) | join(" | ") }}
{%- for cell in row.cells %} | {{ cell.text }}{{ ", " if cell.paper }}{{ cell.paper }}
{%- endfor %} |
{% endfor %}"""
)


def cell(values: Sequence[float], paper: float | None, percent: bool) -> dict[str, str]:
    """Mean and deviation of some seeds, and the paper's number with the difference."""
    digits = 2 if percent else 1
    known = ""
    if paper is not None:
        known = f"paper {paper:.{digits}f}"
        if values:
            known += f" ({np.mean(values) - paper:+.{digits}f})"
    return {"text": mean_text(values, digits), "paper": known}


def make_rows(study: Mapping[str, Any], values: numbers.Values) -> list[dict[str, Any]]:
    """The table: a row for each arm."""
    rows = []
    for name, arm in study["arms"].items():
        cells = [
            cell(
                list(values[title][name].values()),
                study["paper"].get(name, {}).get(title),
                measure["percent"],
            )
            for title, measure in study["measures"].items()
        ]
        seeds = max(len(values[title][name]) for title in study["measures"])
        factors = list(arm["factors"].values())
        rows.append({"factors": factors, "seeds": seeds, "cells": cells})
    return rows


def make_claims(
    study: Mapping[str, Any], values: numbers.Values
) -> list[dict[str, str]]:
    """The claims, judged: a row for each."""
    rows = []
    for claim in study["claims"].values():
        verdict = numbers.judge(claim, values)
        here = ""
        if verdict.seeds:
            here = f"{verdict.mean:+.2f}"
        if verdict.seeds > 1:
            here += f" [{verdict.low:+.2f}, {verdict.high:+.2f}]"
            here += f", {verdict.agree} of {verdict.seeds} seeds"
        terms = " ".join(
            f"{'−' if f < 0 else '+'} {'' if abs(f) == 1 else f'{abs(f):g} × '}"
            f"({figures.name_of(study, arm)})"
            for arm, f in claim["terms"].items()
        )
        bounds = [
            f"{sign} {claim[name]:g}"
            for name, sign in (("above", ">"), ("below", "<"))
            if claim[name] is not None
        ]
        rows.append(
            {
                "text": claim["text"],
                "sum": f"{terms.removeprefix('+ ')} {' and '.join(bounds)}",
                "measure": claim["measure"],
                "here": here,
                "paper": "" if claim["paper"] is None else f"{claim['paper']:+.2f}",
                "word": verdict.word,
            }
        )
    return rows


def _run_row(
    job: Job, pool: pathlib.Path, costs: Sequence[Mapping[str, Mapping[int, float]]]
) -> dict[str, Any]:
    folder = pool / job.folder
    todo, state = missing(job, pool), "complete"
    if todo:
        log = folder / f"{todo[0].name}.log"
        said = f": {last_words(log)[:200]}" if log.is_file() else ""
        state = f"{len(todo)} of {len(job.commands)} commands are missing, next is "
        state += f"{todo[0].name}{said}"
    minutes = sum(one["seconds"] for one in read_record(folder).values()) / 60
    return {
        "arm": job.arm,
        "seed": job.seed,
        "costs": [
            f"{cost[job.arm][job.seed]:.1f}" if job.seed in cost[job.arm] else ""
            for cost in costs
        ],
        "folder": job.folder,
        "minutes": f"{minutes:.1f}" if minutes else "",
        "state": state,
    }


def write(
    study: Mapping[str, Any],
    jobs: Sequence[Job],
    pool: pathlib.Path,
    out: pathlib.Path,
    protocols: Mapping[str, str],
) -> pathlib.Path:
    """Write study.html, study.md, study.csv and the pictures of what is there so far.

    Args:
        study: see `plan.read_study`.
        jobs: its runs.
        pool: folder of all runs.
        out: folder of what is written.
        protocols: of its evaluations.

    Returns:
        The page.
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
    costs = [title for title, one in study["measures"].items() if not one["percent"]]
    drawn = figures.draw(study, done, pool, values, out)
    filled = dict(
        title=study["title"],
        about=study["about"],
        state=f"{len(done)} of {len(jobs)} runs are complete.",
        claims=make_claims(study, values),
        known=any(one["paper"] is not None for one in study["claims"].values()),
        factors=list(next(iter(study["arms"].values()))["factors"]),
        measures=list(study["measures"]),
        rows=make_rows(study, values),
        figures=[(title, pictures.embed(path)) for title, path in drawn],
        protocols=list(shown.items()),
        costs=costs,
        runs=[_run_row(job, pool, [values[title] for title in costs]) for job in jobs],
        versions=", ".join(f"{name} {value}" for name, value in versions().items()),
    )
    for name, template in (("study.md", _MARKDOWN), ("study.html", _PAGE)):
        write_text(out / name, template.render(filled))
    return out / "study.html"
