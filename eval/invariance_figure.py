r"""Compare the four invariances of several runs: a table, a figure, the changed images.

  python -m eval.invariance_figure --out=FOLDER --dataset=emoji \
    --train_split=probe_train --test_split=probe_test --target=category RUN RUN ...

Each run's newest checkpoint (or a file of weights) is evaluated by `eval.invariance`,
unless a file of the run's `eval/` has this result already. Prints the table
and writes in the folder:

* `invariance.csv`: the table,
* `invariance.png`: both measures over the levels, one column per family,
* `changes.png`: the changes themselves, on some of the images,
* `invariance.html`: all of it on one page, which needs no network.

Runs that differ in nothing but their seed are seeds of one thing: mean and sample standard
deviation in the table, mean and range in the figure. Gray is the same network without a step.
"""

import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags
from matplotlib import pyplot as plt

import eval as evals
import sp_jax
from eval import cli, corruptions, invariance
from eval.compare import tables
from eval.compare.runs import Run, read_run
from eval.compare.tables import Comparison
from eval.evaluator import Number
from eval.pages import write_comparison
from eval.plots.figure import (
    UNTRAINED,
    draw_band,
    legend_above,
    make_panels,
    save_figure,
)
from eval.results import Result, evaluate_once, evaluate_untrained
from input_pipeline.stores import ImageStore
from sp_jax import cli as programs
from sp_jax import xla_flags
from sp_jax.errors import UserError
from sp_jax.features import Extractor

SHOWN = 3  # images on the sheet of the changes

Numbers = Mapping[str, float]  # of a result
Results = Mapping[str, Sequence[Numbers]]  # label -> those of each seed


def read_curves(result: Numbers, measure: str) -> dict[str, dict[str, list[float]]]:
    """The values of a result over the levels, by family and kind.

    Args:
      result: of `eval.invariance`.
      measure: "cosine" or "accuracy".

    Returns:
      family -> kind -> values from level 0 (nothing changed) upwards; empty if the
      result is one of another evaluator.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for family, kinds in corruptions.FAMILIES.items():
        for name, kind in kinds.items():
            keys = [f"{family}/{name}/{measure}_{x:g}" for x in kind.levels[1:]]
            if set(keys) <= set(result):
                first = 1.0 if measure == "cosine" else result["clean_accuracy"]
                values = [first, *(result[key] for key in keys)]
                found.setdefault(family, {})[name] = values
    return found


def summarize(written: Result) -> Result:
    """A result of `eval.invariance` by its means over the levels above 0.

    Its numbers are each measure of each family, and of each kind where a family has several.
    "kept" is (accuracy - chance) / (accuracy on unchanged images - chance): what the change
    leaves of what the probe knew.
    """
    numbers = {
        " ".join(key): x for key, x in _summary(written.content["result"]).items()
    }
    headline = tuple(Number(name) for name in numbers)
    content = written.content | {"result": numbers, "headline": headline}
    return written._replace(content=content)


def _summary(result: Numbers) -> dict[tuple[str, str], float]:
    """(measure, change) -> mean over the levels above 0."""
    rows: dict[tuple[str, str], float] = {}
    for measure in invariance.MEASURES:
        if measure == "accuracy":
            rows[measure, "none"] = result["clean_accuracy"]
        for family, kinds in read_curves(result, measure).items():
            rows[measure, family] = result[f"{family}/{measure}"]
            if len(kinds) > 1:
                for kind, values in kinds.items():
                    rows[measure, f"{family}/{kind}"] = float(np.mean(values[1:]))
    chance, known = result["chance"], result["clean_accuracy"] - result["chance"]
    kept = {
        ("kept", change): (value - chance) / known if known > 0 else math.nan
        for (measure, change), value in rows.items()
        if measure == "accuracy" and change != "none"
    }
    return rows | kept


def draw_figure(results: Results, untrained: Sequence[Numbers] = ()) -> plt.Figure:
    """Cosine and accuracy over the levels, a column for each family; seeds as a band.

    The network without a step is gray.
    """
    first = next(iter(results.values()))[0]
    colours = [f"C{i}" for i in range(len(results))]
    groups = list(zip(results.values(), colours, strict=True))
    groups += [(untrained, UNTRAINED)] if untrained else []
    families = read_curves(first, "cosine")
    count = len(families)
    figure, axes = make_panels(2 * count, count, (2.9, 2.6), sharey="row")
    for column, (family, kinds) in enumerate(families.items()):
        name, *others = kinds
        kind = corruptions.FAMILIES[family][name]
        ticks, title = [f"{level:g}" for level in kind.levels], f"{name}: {kind.unit}"
        if others:  # A mean over kinds has no levels, but their numbers.
            ticks = [str(number) for number in range(len(kind.levels))]
            title = f"level, mean of\n{', '.join(kinds)}"
        for axis, measure in zip(axes[:, column], invariance.MEASURES, strict=True):
            for group, colour in groups:
                curves = [list(read_curves(x, measure)[family].values()) for x in group]
                curves = np.mean(curves, axis=1)  # [seeds, levels], over the kinds
                draw_band(axis, range(len(ticks)), curves, colour, marker="o", ms=3.5)
            axis.set_xticks(range(len(ticks)), ticks)
        axes[1, column].axhline(first["chance"], color="#888888", lw=1, ls=":")
        axes[0, column].set_title(family, fontsize=11)
        axes[1, column].set_xlabel(title, fontsize=8)
    for axis, measure in zip(axes[:, 0], invariance.MEASURES, strict=True):
        axis.set_ylabel(_AXES[measure], fontsize=9)
    legend_above(figure, list(results), untrained=bool(untrained))
    return figure


def draw_columns(
    comparison: Comparison, results: Iterable[tuple[Run, Result]], name: str
) -> plt.Figure | None:
    """Draw the results of one name by the columns of a comparison, and the untrained network.

    Args:
      comparison: of the runs; each is drawn at its newest step.
      results: runs, and what was measured of each and of its network without a step.
      name: of the results.

    Returns:
      The figure; None if a column has no such result of `eval.invariance` in the protocol and
      on the images of the first.
    """
    measured, floor, protocol = {}, [], None
    for run, result in results:
        numbers = result.content["result"]
        if result.name == name and read_curves(numbers, "cosine"):
            own = result.content["protocol"], result.content["images"]
            protocol = protocol or own
            if own != protocol:  # other images, or other families
                continue
            if result.untrained:
                floor.append(numbers)
            else:
                measured[run.path, result.content["step"]] = numbers
    groups = {
        label: [measured[x.path, x.step] for x in runs if (x.path, x.step) in measured]
        for label, runs in comparison.newest.items()
    }
    return draw_figure(groups, floor) if all(groups.values()) else None


_AXES = {
    "cosine": "cosine to the unchanged image\n(0: like a different image)",
    "accuracy": "accuracy of the probe\n(dotted: most frequent class)",
}


def draw_changes(store: ImageStore, rows: np.ndarray, seed: int) -> plt.Figure:
    """Each kind in a row: some images of a store, each at every level."""
    scene = corruptions.make_scene(store, rows, seed)
    size, gap = scene.images.shape[1], max(1, scene.images.shape[1] // 12)
    families = corruptions.families_of(corruptions.has_alpha(store))
    kinds = [(family, name) for family, known in families.items() for name in known]
    figure, axes = plt.subplots(
        len(kinds),
        len(rows),
        figsize=(3.6 * len(rows) + 1.2, 0.92 * len(kinds)),
        squeeze=False,
        gridspec_kw={"wspace": 0.08, "hspace": 0.25},
    )
    for line, (family, name) in zip(axes, kinds, strict=True):
        kind = corruptions.FAMILIES[family][name]
        # [levels, rows, S, S, 3], beside each other with white between.
        levels = kind.levels
        shown = [corruptions.apply(family, name, scene, x, seed) for x in levels]
        white = [(0, 0), (0, 0), (0, 0), (0, gap), (0, 0)]
        shown = np.pad(shown, white, constant_values=255)
        for i, axis in enumerate(line):
            axis.imshow(np.concatenate(shown[:, i], axis=1)[:, :-gap])
            places = size / 2 + (size + gap) * np.arange(len(levels))
            axis.set_xticks(places, [f"{level:g}" for level in levels])
            axis.xaxis.tick_top()
            axis.tick_params(length=0, labelsize=7, pad=1)
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
        label = f"{family}\n{name}\n({kind.unit})"
        line[0].set_ylabel(label, fontsize=8, rotation=0, ha="right", va="center")
    return figure


def compare(
    paths: Sequence[str],
    options: Sequence[Mapping[str, Any]],
    out: pathlib.Path,
    name: str = "invariance",
) -> Comparison:
    """Evaluate checkpoints and write the tables, both pictures and the page.

    Args:
      paths: runs' folders, or checkpoints.
      options: of `eval.invariance`, for each of them.
      out: folder of what is written.
      name: of the results in the runs' folders, eval/NAME.json.

    Raises:
      UserError: nothing to compare, no checkpoint, or options that do not fit.
    """
    if not paths:
        raise UserError("Give the folders of one or more runs to compare.")
    # Mistakes show before the work: all options are checked, all checkpoints opened.
    evaluators = [evals.make(invariance, one) for one in options]
    backbones = [sp_jax.load(path) for path in paths]
    runs = [read_run(path) for path in paths]
    out.mkdir(parents=True, exist_ok=True)
    found = []
    for run, backbone, evaluate in zip(runs, backbones, evaluators, strict=True):
        content = evaluate_once(evaluate, Extractor(backbone), run.path, name)
        own = [Result(name, run.folder, content, False)]
        if run.seed is not None:
            floor = evaluate_untrained(run.path, {name: evaluate})[name]
            own.append(Result(name, run.folder, floor, True))
        found.append((run, own))
    short = [(run, list(map(summarize, own))) for run, own in found]
    comparison = tables.compare(
        short, headlines=len(short[0][1][0].content["headline"])
    )
    results = [(run, result) for run, own in found for result in own]
    save_figure(draw_columns(comparison, results, name), out / "invariance.png")
    settings, task, _ = invariance.open_images(dict(options[0]))
    # Spread over the images, without the first and the last.
    places = np.linspace(0, len(task.test_rows) - 1, SHOWN + 2).astype(int)[1:-1]
    sheet = draw_changes(task.test, task.test_rows[places], settings.seed)
    save_figure(sheet, out / "changes.png")
    titles = {"Over the levels": "invariance.png", "The changes": "changes.png"}
    pictures = [(title, out / file) for title, file in titles.items()]
    write_comparison(out / "invariance", "Invariances", comparison, pictures)
    return comparison


def main(paths: list[str]) -> None:
    """Compare the runs given as arguments."""
    out = pathlib.Path(flags.FLAGS.out)
    options = [cli.read_flags(invariance.Options, path) for path in paths]
    comparison = compare(paths, options, out, flags.FLAGS.name)
    print(next(iter(comparison.protocols.values())))
    tables.print_comparison(tables.make_table(comparison), comparison)
    print(f"\nTable, figure, the changes and a page of them: {out}")


if __name__ == "__main__":
    flags.DEFINE_string("out", "runs", "Folder of the table and the pictures.")
    flags.DEFINE_string(
        "name", "invariance", "Name of the runs' results, eval/NAME.json."
    )
    cli.define_flags(invariance.Options)
    xla_flags.set_cpu_flags()
    programs.run(main, positional=True)
