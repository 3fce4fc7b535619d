"""The pictures of a study: its measures beside the paper's, and the curves of its runs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from eval import invariance_figure
from eval.detection.figure import draw_precision, read_detection
from eval.plots.figure import legend_above, make_panels, save_figure
from eval.plots.training import Lines, draw_groups
from eval.runs import by_label
from eval.study.numbers import Values, read_result
from eval.study.plan import Job, Study
from sp_jax.train.writer import read_metrics

# Pages are about this wide, in inches; what is wider would be shrunk until nobody can read it.
WIDTH = 16.0
COLUMNS = 3  # of pictures of measures, at most


def draw(
    study: Study, done: Sequence[Job], pool: Path, values: Values, out: Path
) -> list[tuple[str, Path]]:
    """Draw into the folder `out` what there are complete runs for: titles and files."""
    if not done:
        return []
    figure = study["figure"]
    made: dict[str, tuple[str, plt.Figure]] = {}
    names = [name_of(study, job.arm) for job in done]
    folders = by_label([pool / job.folder for job in done], names)

    def of_arms(read: Callable[[Path], Any]) -> dict[str, list[Any]]:
        return {arm: [read(one) for one in some] for arm, some in folders.items()}

    if figure["kind"] == "invariance":
        results = of_arms(lambda one: read_result(one, figure["result"])["result"])
        made["invariance"] = "Invariances", invariance_figure.draw_figure(results)
    elif figure["kind"] == "detection":
        name = Path("detection", figure["result"])
        curves = of_arms(lambda one: read_detection(one / name).curves)
        drawn = draw_precision(curves, by_class=True)
        made["detection"] = "Precision over recall", drawn
    if "x" in figure:
        title = "As a figure" + (", with the paper's" if study["paper"] else "")
        made["numbers"] = title, draw_numbers(study, values)
    if drawn := draw_curves(study, done, pool):
        made["curves"] = "Training", drawn
    for name, (_, drawn) in made.items():
        save_figure(drawn, out / f"{name}.png")
    return [(title, out / f"{name}.png") for name, (title, _) in made.items()]


def name_of(study: Study, arm: str) -> str:
    """An arm by its factors."""
    return ", ".join(study["arms"][arm]["factors"].values())


def draw_numbers(study: Study, values: Values) -> plt.Figure:
    """Each measure in percent: bars or lines, hollow marks the paper's."""
    figure = study["figure"]
    x, series = figure["x"], figure.get("series")
    titles = [title for title, m in study["measures"].items() if m["percent"]]
    factors = {name: arm["factors"] for name, arm in study["arms"].items()}
    places = list(dict.fromkeys(one[x] for one in factors.values()))
    kinds = list(dict.fromkeys(one.get(series, "") for one in factors.values()))
    width = max(4.0, 0.75 * len(places) + 1.2)
    columns = max(1, min(COLUMNS, len(titles), int(WIDTH // width)))
    size = (width, 2.5 if columns == 1 else 3.3)
    made, axes = make_panels(len(titles), columns, size, sharex=columns == 1)
    for axis, title in zip(axes.flat, titles, strict=False):
        for number, kind in enumerate(kinds):
            arms = {
                places.index(one[x]): name
                for name, one in factors.items()
                if one.get(series, "") == kind
            }
            draw_one = _line if figure["kind"] == "lines" else _bars
            draw_one(axis, _points(arms, study, values, title), number, len(kinds))
        turn = {"rotation": 30, "ha": "right"} if len(places) > 5 else {}
        axis.set_xticks(range(len(places)), places, fontsize=8, **turn)
        axis.set_title(title, fontsize=10)
        axis.grid(axis="x", visible=False)
    if any(kinds):
        legend_above(made, kinds)
    made.supxlabel(x, fontsize=9)
    made.supylabel("%", fontsize=9)
    return made


def _points(arms: Mapping[int, str], study: Study, values: Values, title: str):
    """Of the arms with runs place, mean, standard deviation; of the paper place, number."""
    found, paper = [], []
    for place, arm in sorted(arms.items()):
        seeds = list(values[title][arm].values())
        if seeds:
            spread = np.std(seeds, ddof=1) if len(seeds) > 1 else 0.0
            found.append((place, np.mean(seeds), spread))
        if title in study["paper"].get(arm, {}):
            paper.append((place, study["paper"][arm][title]))
    return np.array(found).reshape(-1, 3).T, np.array(paper).reshape(-1, 2).T


def _bars(axis: plt.Axes, points, number: int, count: int) -> None:
    (place, mean, spread), (known, paper) = points
    width = 0.8 / count
    shift = (number - (count - 1) / 2) * width
    style = {"color": f"C{number}", "alpha": 0.8, "error_kw": {"lw": 1, "capsize": 2}}
    axis.bar(place + shift, mean, 0.92 * width, yerr=spread, **style)
    axis.plot(known + shift, paper, "D", ms=5, mfc="white", mec="black")


def _line(axis: plt.Axes, points, number: int, count: int) -> None:
    (place, mean, spread), (known, paper) = points
    axis.errorbar(place, mean, spread, color=f"C{number}", marker="o", ms=4, capsize=2)
    axis.plot(known, paper, "D:", ms=5, color=f"C{number}", mfc="white", lw=1)


def draw_curves(study: Study, done: Sequence[Job], pool: Path) -> plt.Figure | None:
    """Loss and rank of each run: a column for each x of the figure, colours its series."""
    figure, arms = study["figure"], study["arms"]
    groups: dict[str, list[tuple[str, Lines]]] = {}
    recipes = set()
    for job in done:
        if lines := read_metrics(pool / job.folder):
            factors = arms[job.arm]["factors"]
            title = factors.get(figure.get("x"), "")
            if figure["kind"] == "lines":  # x is a quantity: alone it says nothing
                title = f"{figure['x']}: {title}"
            kind = factors.get(figure.get("series"), "")
            groups.setdefault(title, []).append((kind, lines))
            recipes.add(arms[job.arm]["config"])
    # One scale for all, but not for the losses of different methods.
    shared = {"effective_rank"} | ({"loss"} if len(recipes) == 1 else set())
    return draw_groups(groups, shared) if groups else None
