r"""Compare runs: tables, curves and retrieval sheets, in one page that needs no network.

    python -m eval.report --out=runs/quickstart runs/quickstart/semantic \
        runs/quickstart/augmented

Runs that differ only in their seed share a column; a column is named by how it differs from
the others. Writes `report.html` (self-contained), `report.csv` (every number),
`curves/*.png` and `retrieval.png` in the folder --out, and prints the tables. The numbers are
those in the runs' folders. For the retrieval sheet, the networks embed the images of that
evaluation once more.
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags

import sp_jax
from eval import figures, invariance_figure, retrieval
from eval.compare import tables
from eval.compare.runs import Run, read_config, read_run
from eval.compare.tables import Comparison
from eval.pages import write_page
from eval.plots.figure import image_grid, save_figure
from eval.plots.training import draw_metric
from eval.results import Result, read_results
from eval.task import images_as
from sp_jax import cli
from sp_jax.errors import UserError
from sp_jax.features import Extractor
from sp_jax.files import write_text
from sp_jax.train.starts import read_starts

QUERIES = 10
NEIGHBOURS = 5
# Curves to draw, in this order, where a run has them.
_CURVES = ("loss", "effective_rank", "alignment", "uniformity")


class RunFolder(NamedTuple):
    """The content of a run's folder."""

    run: Run
    config: dict[str, Any]
    lines: list[dict[str, Any]]
    results: list[Result]


def read_folder(workdir: str | pathlib.Path) -> RunFolder:
    """Read the identity of a run, its config.json, metrics.jsonl and results.

    Raises:
        UserError: the folder holds no evaluated run, or one of its files is damaged.
    """
    from sp_jax.train.writer import read_metrics

    workdir = pathlib.Path(workdir)
    run = read_run(workdir)
    config, lines = read_config(workdir), read_metrics(workdir)
    results = read_results(workdir)
    if not lines or not results:
        raise UserError(
            f"{workdir} holds no evaluated run: let it finish first, with python -m "
            f"sp_jax.main --config=… --workdir={workdir}."
        )
    return RunFolder(run, config, lines, results)


def compare(folders: Sequence[RunFolder]) -> Comparison:
    """Compare the runs' own results."""
    return tables.compare([(x.run, x.results) for x in folders])


def read_baselines(folders: Sequence[RunFolder]) -> dict[str, dict[str, float]]:
    """Results of features without learning, measured by benchmarks/emoji_baselines.py."""
    path = pathlib.Path(__file__).parents[1] / "input_pipeline/emoji/baselines.json"
    emoji = all(one.config["data"]["store"] == "emoji" for one in folders)
    if not emoji or not path.is_file():
        return {}
    rows = json.loads(path.read_text())["results"].items()
    return {name: {k: v for k, v in x.items() if k != "chance"} for name, x in rows}


def draw_curves(
    lines: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
    comparison: Comparison,
    out: pathlib.Path,
) -> list[pathlib.Path]:
    """Draw loss, health of the representation and evaluations over epochs, a file for each.

    `lines` are label -> those of each of its runs; the files go into the folder `out`.
    """
    every = [line for group in lines.values() for one in group for line in one]
    probes = dict.fromkeys(f"{x.name}/{x.number.name}" for x in comparison.rows)
    # Evaluations that were measured once have no curve.
    count = sum(map(len, lines.values()))
    probes = [x for x in probes if sum(x in line for line in every) > count]
    names = [*_CURVES[:2], *probes, *_CURVES[2:]]
    names = [name for name in names if any(name in line for line in every)]
    out.mkdir(exist_ok=True)
    paths = [out / f"{name.replace('/', '_')}.png" for name in names]
    for name, path in zip(names, paths, strict=True):
        save_figure(draw_metric(lines, name), path)
    return paths


def draw_invariances(
    comparison: Comparison, folders: Sequence[RunFolder], out: pathlib.Path
) -> list[tuple[str, pathlib.Path]]:
    """Draw each result of `eval.invariance` that all columns have: protocol and picture."""
    results = [(one.run, result) for one in folders for result in one.results]
    named = {result.name: result.content["protocol"] for _, result in results}
    drawn = []
    for name, protocol in named.items():
        if made := invariance_figure.draw_columns(comparison, results, name):
            save_figure(made, out / f"{name}.png")
            drawn.append((protocol, out / f"{name}.png"))
    return drawn


def draw_retrieval(
    runs: Mapping[str, Run], config: Mapping[str, Any], path: pathlib.Path
) -> str | None:
    """Queries with their nearest neighbours, the first run of each label side by side.

    With the protocol "across", neighbours differ in that attribute (by other artists, say).
    A green frame is a right neighbour: one with the value of `match` that the query has.

    Returns:
        What the sheet shows in words; None, and no sheet, without a retrieval evaluation.
    """
    given = config["evals"].get("retrieval")
    if given is None:
        return None
    names = {field.name for field in dataclasses.fields(retrieval.Options)}
    given = {k: v for k, v in given.items() if k in names}
    options = retrieval.Options(**images_as(config["data"]) | given)
    store = options.open(options.splits[-1])
    labels = store.target(options.match)[0]
    across = options.across if options.protocol == "across" else None
    # Spread over the store, and the same for every run.
    queries = np.linspace(0, len(store) - 1, QUERIES + 2).astype(int)[1:-1]
    sheet, titles, right = [[image] for image in store.read(queries)], ["query"], []
    for label, run in runs.items():
        features = Extractor(sp_jax.load(run.path)).extract(store)
        found = retrieval.nearest(features, store, queries, NEIGHBOURS, across=across)
        for row, near in enumerate(found):
            same = labels[near] == labels[queries[row]]
            right += [(row, len(titles) + 1 + i) for i in np.flatnonzero(same)]
            sheet[row] += [None, *store.read(near)]
        titles += [None, *[""] * NEIGHBOURS]
        titles[-1 - NEIGHBOURS // 2] = label  # in the middle
    save_figure(image_grid(sheet, titles, side=0.75, framed=right), path)
    what = "concept" if options.match == "label" else options.match
    text = f"Green: the same {what}."
    return text if across is None else f"{text} Neighbours are of another {across}."


def make_runs(
    comparison: Comparison, folders: Sequence[RunFolder]
) -> list[list[object]]:
    """A row for each run, with how it was made."""
    label_of = {
        run.path: label for label, group in comparison.newest.items() for run in group
    }
    names = "run column seed steps pairs/s device began code command".split()
    rows: list[list[object]] = [names]
    for run, config, lines, _ in folders:
        times = [line["step_ms"] for line in lines if "step_ms" in line]
        speed = f"{1e3 * config['batch_size'] / np.median(times):.0f}" if times else ""
        steps = f"{run.step} of {run.total}" if run.total else str(run.step)
        start = (read_starts(run.folder) or [{}])[-1]
        date = start.get("date", "unknown")[:16].replace("T", " ")
        code = start.get("versions", {}).get("sp_jax", "unknown")
        command = start.get("command", "unknown")
        row = [run.folder.name, label_of.get(run.path, "not used"), run.seed]
        made = [start.get("device", "unknown"), date, code, command]
        rows.append([*row, steps, speed, *made])
    return rows


def write_report(
    folders: Sequence[RunFolder], comparison: Comparison, out: pathlib.Path
) -> pathlib.Path:
    """Draw the pictures and write report.html and report.csv; return the page's path."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "report.csv", tables.format_csv(tables.list_values(comparison)))
    lines = {one.run.path: one.lines for one in folders}
    newest = comparison.newest
    curves = {label: [lines[run.path] for run in x] for label, x in newest.items()}
    curves = draw_curves(curves, comparison, out / "curves")
    # Of the first run of each label.
    first = {label: group[0] for label, group in newest.items()}
    try:
        caption = draw_retrieval(first, folders[0].config, out / "retrieval.png")
    except UserError as error:  # its images are gone, or too few
        print(f"The report is without a retrieval sheet: {error}", file=sys.stderr)
        caption = None
    titles = {"views.png": "The first batch: pairs and views"}
    titles |= {f"figures/{name}.png": title for name, title in figures.TITLES.items()}
    sections = []
    for name, title in titles.items():
        files = {label: run.folder / name for label, run in first.items()}
        if there := [(label, path) for label, path in files.items() if path.is_file()]:
            sections.append((title, there))
    return write_page(
        out / "report.html",
        "report.html",
        title=" against ".join(newest) if 1 < len(newest) < 4 else "Runs compared",
        curves=curves,
        retrieval=out / "retrieval.png",
        caption=caption,
        invariances=draw_invariances(comparison, folders, out),
        sections=sections,
        runs=make_runs(comparison, folders),
        **tables.page_values(comparison, read_baselines(folders)),
    )


def main(paths: list[str]) -> None:
    """Compare the runs given as arguments."""
    if not paths:
        raise UserError("Give the folders of one or more runs to compare.")
    folders = [read_folder(path) for path in paths]
    comparison = compare(folders)
    path = write_report(folders, comparison, pathlib.Path(flags.FLAGS.out))
    table = tables.make_table(comparison, read_baselines(folders))
    tables.print_comparison(table, comparison)
    print(f"\nReport with curves and pictures: {path}")


if __name__ == "__main__":
    flags.DEFINE_string("out", "runs", "Folder of the report.")
    cli.run(main, positional=True)
