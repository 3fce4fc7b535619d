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

import numpy as np
from absl import flags

import sp_jax
from eval import figures, invariance_figure, retrieval
from eval.pages import write_page
from eval.plots.figure import image_grid, save_figure
from eval.plots.training import draw_metrics
from eval.runs import (
    RunFolder,
    by_label,
    format_table,
    headline_of,
    mean_text,
    read_run,
)
from eval.task import images_as
from sp_jax import cli
from sp_jax.errors import UserError
from sp_jax.features import Extractor

QUERIES = 10
NEIGHBOURS = 5
# Curves to draw, in this order, where a run has them.
_CURVES = ("loss", "effective_rank", "alignment", "uniformity")


def make_table(runs: Sequence[RunFolder]) -> list[list[str]]:
    """Rows of text: one an evaluation, with the baselines where they are known.

    Several runs of one label become their mean and sample standard deviation.
    """
    names = list(dict.fromkeys(name for run in runs for name in run.results))
    # Features without learning, as benchmarks/emoji_baselines.py measured them.
    path = pathlib.Path(__file__).parents[1] / "input_pipeline/emoji/baselines.json"
    emoji = all(run.config["data"]["store"] == "emoji" for run in runs)
    known = emoji and path.is_file()
    baselines = json.loads(path.read_text())["results"] if known else {}
    columns = list(dict.fromkeys(c for row in baselines.values() for c in row))
    groups = by_label(runs)
    table = [["evaluation", *groups, *columns]]
    for name in names:
        results = [
            [run.results[name]["result"] for run in group if name in run.results]
            for group in groups.values()
        ]
        key = headline_of(name, runs)
        means = [mean_text([r[key] for r in group if key in r]) for group in results]
        known = baselines.get(name, {})
        others = [mean_text([known[c]] if c in known else []) for c in columns]
        table.append([f"{name} ({key})", *means, *others])
    return table


def draw_curves(runs: Sequence[RunFolder], path: pathlib.Path) -> None:
    """Loss, health of the representation and evaluations over epochs."""
    probes = [f"{name}/{headline_of(name, runs)}" for name in runs[0].results]
    # Of what was measured once there is no curve.
    probes = [name for name in probes if sum(name in x for x in runs[0].lines) > 1]
    names = [*_CURVES[:2], *probes, *_CURVES[2:]]
    lines = by_label([run.lines for run in runs], [run.label for run in runs])
    save_figure(draw_metrics(lines, names), path)


def draw_invariances(
    runs: Sequence[RunFolder], out: pathlib.Path
) -> list[tuple[str, pathlib.Path]]:
    """Draw each result of `eval.invariance` that all runs have: protocol and picture."""
    drawn = []
    for name, first in runs[0].results.items():
        found = [run.results.get(name, {}).get("result", {}) for run in runs]
        if all(invariance_figure.read_curves(result, "cosine") for result in found):
            results = by_label(found, [run.label for run in runs])
            path = out / f"{name}.png"
            save_figure(invariance_figure.draw_figure(results), path)
            drawn.append((first["protocol"], path))
    return drawn


def draw_retrieval(runs: Sequence[RunFolder], path: pathlib.Path) -> str | None:
    """Queries with their nearest neighbours, the first run of each label side by side.

    With the protocol "across", neighbours differ in that attribute (by other artists, say).
    A green frame is a neighbour of the query's class.

    Returns:
        What the sheet shows in words; None, and no sheet, without a retrieval evaluation.
    """
    given = runs[0].config["evals"].get("retrieval")
    if given is None:
        return None
    names = {field.name for field in dataclasses.fields(retrieval.Options)}
    given = {k: v for k, v in given.items() if k in names}
    given |= images_as(runs[0].config["data"])
    options = retrieval.Options(**given)
    runs = [group[0] for group in by_label(runs).values()]
    store = options.open(options.splits[-1])
    across = options.across if options.protocol == "across" else None
    # Spread over the store, and the same for every run.
    queries = np.linspace(0, len(store) - 1, QUERIES + 2).astype(int)[1:-1]
    sheet, titles, right = [[image] for image in store.read(queries)], ["query"], []
    for run in runs:
        features = Extractor(sp_jax.load(run.workdir)).extract(store)
        found = retrieval.nearest(features, store, queries, NEIGHBOURS, across=across)
        for row, near in enumerate(found):
            same = store.labels[near] == store.labels[queries[row]]
            right += [(row, len(titles) + 1 + i) for i in np.flatnonzero(same)]
            sheet[row] += [None, *store.read(near)]
        titles += [None, *[""] * NEIGHBOURS]
        titles[-1 - NEIGHBOURS // 2] = run.label  # in the middle
    save_figure(image_grid(sheet, titles, side=0.75, framed=right), path)
    text = "Green: the same concept."
    return text if across is None else f"{text} Neighbours are of another {across}."


def write_report(runs: Sequence[RunFolder], out: pathlib.Path) -> pathlib.Path:
    """Draw the pictures and write report.html; return its path."""
    out.mkdir(parents=True, exist_ok=True)
    draw_curves(runs, out / "curves.png")
    caption = draw_retrieval(runs, out / "retrieval.png")
    speeds = [
        [line["images_per_sec"] for line in run.lines if "images_per_sec" in line]
        for run in runs
    ]
    titles = {"views.png": "The first batch: pairs and views"}
    titles |= {f"figures/{name}.png": title for name, title in figures.TITLES.items()}
    sections = []
    for name, title in titles.items():
        # Of the first run of each label, where that has it.
        files = {label: x[0].workdir / name for label, x in by_label(runs).items()}
        if there := [(label, path) for label, path in files.items() if path.is_file()]:
            sections.append((title, there))
    return write_page(
        out / "report.html",
        "report.html",
        title="Semantic pairs against augmentation pairs",
        table=make_table(runs),
        runs=runs,
        seeds=", ".join(dict.fromkeys(str(run.config["seed"]) for run in runs)),
        protocols={n: r["protocol"] for n, r in runs[0].results.items()},
        curves=out / "curves.png",
        retrieval=out / "retrieval.png",
        caption=caption,
        invariances=draw_invariances(runs, out),
        sections=sections,
        speeds=[f"{np.median(s):.0f}" if s else "?" for s in speeds],
    )


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
