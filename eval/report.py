"""Compare runs: a table, curves and retrieval sheets, in one page that needs no network.

    python -m eval.report --out=runs/quickstart runs/quickstart/semantic \
        runs/quickstart/augmented

Writes `report.html` (self-contained), `curves.png` and `retrieval.png` in the folder
--out, and prints the table. Only the runs' own files are read.
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence

import jinja2
import numpy as np
from absl import flags
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D

from eval import invariance_figure, pictures
from eval.retrieval import Options as RetrievalOptions
from eval.retrieval import nearest
from eval.runs import (
    RunFolder,
    format_table,
    group_runs,
    headline_of,
    mean_text,
    read_run,
)
from input_pipeline.stores import open_store
from sp_jax import cli
from sp_jax.errors import UserError
from sp_jax.features import Extractor
from sp_jax.files import write_text

QUERIES = 10
NEIGHBOURS = 5

# Curves to draw, in this order, where a run has them.
_CURVES = ("loss", "effective_rank", "alignment", "uniformity")
# Pictures of `eval.figures`, where a run has them.
_FIGURES = {
    "map": "The features as a map",
    "neighbours": "Some pairs, and what is nearest to each of their images",
    "attention": "Where the heads of the last block look",
    "filters": "The first layer",
}


def make_table(runs: Sequence[RunFolder]) -> list[list[str]]:
    """Rows of text: one an evaluation, with the baselines where they are known.

    Several runs of one label become their mean and sample standard deviation.
    """
    names = list(dict.fromkeys(name for run in runs for name in run.results))
    baselines = _baselines(runs)
    columns = list(dict.fromkeys(c for row in baselines.values() for c in row))
    groups = group_runs(runs)
    table = [["evaluation", *groups, *columns]]
    for name in names:
        results = [
            [run.results[name]["result"] for run in group if name in run.results]
            for group in groups.values()
        ]
        key = headline_of(name, runs)
        row = [f"{name} ({key})"]
        row += [mean_text([r[key] for r in group if key in r]) for group in results]
        row += [
            mean_text([baselines[name][c]] if c in baselines.get(name, {}) else [])
            for c in columns
        ]
        table.append(row)
    return table


def _baselines(runs: Sequence[RunFolder]) -> dict[str, dict[str, float]]:
    """Features without learning, as benchmarks/emoji_baselines.py measured them."""
    if any(run.config["data"]["store"] != "emoji" for run in runs):
        return {}
    path = pathlib.Path(__file__).parents[1] / "input_pipeline/emoji/baselines.json"
    return json.loads(path.read_text())["results"] if path.is_file() else {}


def draw_curves(runs: Sequence[RunFolder], path: pathlib.Path) -> None:
    """Loss, health of the representation and evaluations over epochs."""
    probes = [f"{name}/{headline_of(name, runs)}" for name in runs[0].results]
    # Of what was measured once there is no curve.
    probes = [name for name in probes if sum(name in x for x in runs[0].lines) > 1]
    names = [*_CURVES[:2], *probes, *_CURVES[2:]]
    labels = list(group_runs(runs))
    columns = 4
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.4 * columns, 2.6 * rows), squeeze=False
    )
    for axis, name in zip(axes.flat, names, strict=False):
        for run in runs:
            color = f"C{labels.index(run.label)}"
            points = [(line["epoch"], line[name]) for line in run.lines if name in line]
            marker = "o" if name in probes else None
            if points:
                axis.plot(
                    *zip(*points, strict=True),
                    color=color,
                    marker=marker,
                    ms=3,
                )
        axis.set_title(name.replace("_", " "), fontsize=10)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    for axis in axes[-1]:
        axis.set_xlabel("epoch", fontsize=9)
    # Named here: matplotlib leaves labels out that begin with an underscore.
    lines = [Line2D([], [], color=f"C{i}") for i in range(len(labels))]
    axes[0, 0].legend(lines, labels, fontsize=8, frameon=False)
    figure.tight_layout()
    pictures.save_figure(figure, path)


def draw_invariances(
    runs: Sequence[RunFolder], out: pathlib.Path
) -> list[tuple[str, str]]:
    """The figure of each result of `eval.invariance` that all runs have.

    Returns:
        Title and embedded picture.
    """
    figures = []
    for name, first in runs[0].results.items():
        results: dict[str, list[dict[str, float]]] = {}
        for run in runs:
            result = run.results.get(name, {}).get("result", {})
            if invariance_figure.read_curves(result, "cosine"):
                results.setdefault(run.label, []).append(result)
        if sum(map(len, results.values())) == len(runs):
            path = out / f"{name}.png"
            pictures.save_figure(invariance_figure.draw_figure(results), path)
            figures.append((first["protocol"], pictures.embed(path)))
    return figures


def draw_retrieval(runs: Sequence[RunFolder], path: pathlib.Path) -> str | None:
    """Queries with their nearest neighbours, the first run of each label side by side.

    With the protocol "across", neighbours differ in that attribute (by other artists, say).
    A green frame is a neighbour of the query's class.

    Returns:
        What the sheet shows in words; None where the runs have no retrieval evaluation, and
        so no sheet.
    """
    import sp_jax

    given = runs[0].config["evals"].get("retrieval")
    if given is None:
        return None
    names = {field.name for field in dataclasses.fields(RetrievalOptions)}
    options = RetrievalOptions(**{k: v for k, v in given.items() if k in names})
    runs = [group[0] for group in group_runs(runs).values()]
    data = runs[0].config["data"]
    store = open_store(
        options.dataset,
        options.splits[-1],
        image_size=data["image_size"],
        resize=data.get("resize", "crop"),
        max_skipped=data.get("max_skipped", 0.01),
        data_dir=data["dir"] or None,
    )
    across = options.across if options.protocol == "across" else None
    # Spread over the store, and the same for every run.
    queries = np.linspace(0, len(store) - 1, QUERIES + 2).astype(int)[1:-1]
    width = 1 + len(runs) * NEIGHBOURS
    figure, axes = plt.subplots(
        QUERIES,
        width + len(runs),
        figsize=(0.75 * (width + len(runs)), 0.78 * QUERIES + 0.5),
        gridspec_kw={
            "wspace": 0.08,
            "hspace": 0.12,
            "width_ratios": [1] + ([0.3] + [1] * NEIGHBOURS) * len(runs),
        },
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for row, query in enumerate(queries):
        axes[row, 0].imshow(store.read(query))
    axes[0, 0].set_title("query", fontsize=9)
    for i, run in enumerate(runs):
        found = nearest(
            Extractor(sp_jax.load(run.workdir)).extract(store),
            store,
            queries,
            NEIGHBOURS,
            across=across,
        )
        start = 2 + i * (NEIGHBOURS + 1)
        axes[0, start + NEIGHBOURS // 2].set_title(run.label, fontsize=9)
        for row, (query, neighbours) in enumerate(zip(queries, found, strict=True)):
            for axis, neighbour in zip(axes[row, start:], neighbours, strict=False):
                axis.imshow(store.read(neighbour))
                if store.labels[neighbour] == store.labels[query]:
                    _frame(axis)
    pictures.save_figure(figure, path)
    text = "Green: the same concept."
    return text if across is None else f"{text} Neighbours are of another {across}."


def _frame(axis: plt.Axes) -> None:
    axis.set_axis_on()
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(color="#1a9850", linewidth=2.5)


_PAGE = jinja2.Template(
    """<!doctype html>
<html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>sp_jax report</title>
<style>
 body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto;
        padding: 0 1rem; color: #222 }
 table { border-collapse: collapse } th, td { padding: .3rem .8rem; text-align: right;
        border-bottom: 1px solid #ddd } th:first-child, td:first-child { text-align: left }
 img { max-width: 100% } code { background: #f4f4f4 } small { color: #666 }
 .side { display: flex; gap: 1rem; flex-wrap: wrap } .side figure { flex: 1; margin: 0 }
</style>
<h1>Semantic pairs against augmentation pairs</h1>
<table><tr>{% for cell in table[0] %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in table[1:] %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
<p><small>Seed {{ seeds }}. Several seeds: mean ± sample standard deviation.
Protocols:</small></p>
<ul>{% for name, text in protocols.items() %}
<li><small><b>{{ name }}</b>: {{ text }}</small></li>{% endfor %}</ul>
<h2>Curves</h2><img src="{{ curves }}" alt="curves of both runs">
{% for protocol, picture in invariances %}<h2>Invariance to changes of the images</h2>
<img src="{{ picture }}" alt="invariance to changes of the images">
<p><small>{{ protocol }}. Several seeds: mean and range.</small></p>{% endfor %}
{% if retrieval %}<h2>Nearest neighbours on concepts that no run saw</h2>
<p>{{ caption }}</p>
<img src="{{ retrieval }}" alt="retrieval sheet">{% endif %}
<h2>The first batch: pairs and views</h2>
<div class="side">{% for label, picture in views %}
<figure><figcaption>{{ label }}</figcaption><img src="{{ picture }}" alt="views"></figure>
{% endfor %}</div>
{% for title, pictures in figures %}<h2>{{ title }}</h2>
<div class="side">{% for label, picture in pictures %}
<figure><figcaption>{{ label }}</figcaption><img src="{{ picture }}" alt="{{ title }}">
</figure>{% endfor %}</div>{% endfor %}
<h2>Runs</h2>
<ul>{% for run in runs %}<li>{{ run.label }}: <code>{{ run.workdir.name }}</code>,
{{ run.config.method }}, {{ run.config.model.name }}, {{ run.lines[-1].step }} steps,
{{ speeds[loop.index0] }} images/s</li>{% endfor %}</ul>
</html>
""",
    autoescape=True,
)


def _of_each_label(runs: Sequence[RunFolder], name: str) -> list[tuple[str, str]]:
    """A picture of the first run of each label, where that has it."""
    return [
        (label, pictures.embed(group[0].workdir / name))
        for label, group in group_runs(runs).items()
        if (group[0].workdir / name).is_file()
    ]


def write_report(runs: Sequence[RunFolder], out: pathlib.Path) -> pathlib.Path:
    """Draw the pictures and write report.html; return its path."""
    out.mkdir(parents=True, exist_ok=True)
    draw_curves(runs, out / "curves.png")
    caption = draw_retrieval(runs, out / "retrieval.png")
    speeds = [
        [line["images_per_sec"] for line in run.lines if "images_per_sec" in line]
        for run in runs
    ]
    page = _PAGE.render(
        table=make_table(runs),
        runs=runs,
        seeds=", ".join(dict.fromkeys(str(run.config["seed"]) for run in runs)),
        protocols={n: r["protocol"] for n, r in runs[0].results.items()},
        curves=pictures.embed(out / "curves.png"),
        retrieval=pictures.embed(out / "retrieval.png") if caption else None,
        caption=caption,
        invariances=draw_invariances(runs, out),
        views=_of_each_label(runs, "views.png"),
        figures=[
            (title, shown)
            for name, title in _FIGURES.items()
            if (shown := _of_each_label(runs, f"figures/{name}.png"))
        ],
        speeds=[f"{np.median(s):.0f}" if s else "?" for s in speeds],
    )
    path = out / "report.html"
    write_text(path, page)
    return path


def main(paths: list[str]) -> None:
    """Compare the runs given as arguments."""
    if not paths:
        raise UserError("Give the folders of one or more runs to compare.")
    runs = [read_run(path) for path in paths]
    path = write_report(runs, pathlib.Path(flags.FLAGS.out))
    print(format_table(make_table(runs)))
    print(f"\nReport with curves and pictures: {path}")


if __name__ == "__main__":
    flags.DEFINE_string("out", "runs", "Folder of the report.")
    cli.run(main, positional=True)
