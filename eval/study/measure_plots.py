"""Draw the pictures of a study: its measures with the paper's, and the curves of its runs.

Each panel is a separate file, so that a page can show as many side by side as are readable; a
picture of all panels is kept, too.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import pyplot as plt

from eval import invariance_figure
from eval.detection.figure import draw_precision, read_detection
from eval.plots.figure import (
    UNTRAINED,
    drawable,
    legend_above,
    make_panels,
    save_figure,
)
from eval.plots.training import METRICS, Lines, draw_groups
from eval.study.numbers import Values, read_result
from eval.study.plan import Job, Study
from sp_jax.train.writer import read_metrics

WIDTH = 4.0  # of a panel, in inches: a small screen shows it almost as it is
COLUMNS = 3  # of panels in the picture of all


class Picture(NamedTuple):
    """A picture of the page.

    Attributes:
        title: above it.
        caption: below it: what is drawn, and the number of seeds.
        panels: pictures that are shown side by side if there is room.
        wide: whether it is one picture that has to be scrolled on a small screen.
    """

    title: str
    caption: str
    panels: list[Path]
    wide: bool = False


def draw(
    study: Study,
    done: Sequence[Job],
    pool: Path,
    values: Values,
    floors: Values,
    out: Path,
) -> list[Picture]:
    """Draw the pictures of all complete runs into the folder `out`."""
    if not done:
        return []
    figure, made = study["figure"], []
    folders: dict[str, list[Path]] = {}
    runs = {pool / job.folder: job for job in done}
    for place, job in runs.items():
        folders.setdefault(name_of(study, job.arm), []).append(place)
    seeds = count_text(list(map(len, folders.values())))

    def of_arms(read: Callable[[Path], Any]) -> dict[str, list[Any]]:
        return {arm: [read(one) for one in some] for arm, some in folders.items()}

    def result_of(place: Path, name: str, untrained: bool = False) -> dict[str, Any]:
        found = read_result(study, runs[place], place, name, untrained)
        return found["result"] if found else {}

    def save(name: str, drawn: plt.Figure) -> Path:
        save_figure(drawn, out / f"{name}.png")
        return out / f"{name}.png"

    if figure["kind"] == "invariance":
        name = figure["result"]
        found = of_arms(lambda place: result_of(place, name))
        results = {arm: list(filter(None, some)) for arm, some in found.items()}
        results = {arm: some for arm, some in results.items() if some}
        floor = list(filter(None, (result_of(x, name, True) for x in runs)))
        if results:
            path = save("invariance", invariance_figure.draw_figure(results, floor))
            caption = f"Mean and range of {seeds}; dotted: chance"
            caption += f"; gray: untrained, n = {len(floor)}." if floor else "."
            made.append(Picture("Invariances", caption, [path], wide=True))
    elif figure["kind"] == "detection":
        name = Path("detection", figure["result"])
        curves = of_arms(lambda one: read_detection(one / name).curves)
        path = save("detection", draw_precision(curves, by_class=True))
        caption = f"Mean and range of {seeds}."
        made.append(Picture("Precision over recall", caption, [path], wide=True))
    titles = [title for title, m in study["measures"].items() if m["percent"]]
    if "x" in figure and titles:
        save("numbers", draw_numbers(study, values, floors, titles))
        panels = [
            save(f"numbers_{number}", draw_numbers(study, values, floors, [title]))
            for number, title in enumerate(titles, start=1)
        ]
        title = "As a figure" + (", with the paper's" if study["paper"] else "")
        made.append(Picture(title, caption_numbers(study, seeds, floors), panels))
    if groups := read_curves(study, done, pool):
        # One scale for all, but not for the losses of different methods.
        recipes = {study["arms"][job.arm]["config"] for job in done}
        shared = {"effective_rank"} | ({"loss"} if len(recipes) == 1 else set())
        save("curves", draw_groups(groups, shared))
        panels = [
            save(f"curves_{number}", drawn)
            for number, drawn in enumerate(draw_each(groups, shared), start=1)
        ]
        caption = f"Each run is a line: {seeds}."
        made.append(Picture("Training", caption, panels))
    return made


def count_text(counts: Sequence[int]) -> str:
    """The number of seeds of each arm, in words."""
    few, many = min(counts), max(counts)
    number = f"{few}" if few == many else f"{few} to {many}"
    return f"n = {number} seed{'s' if many > 1 else ''} of each arm"


def caption_numbers(study: Study, seeds: str, floors: Values) -> str:
    """A sentence that explains bars, whiskers and marks."""
    marks = "points" if study["figure"]["kind"] == "lines" else "bars"
    said = f"{seeds}: {marks} are means, whiskers ± the sample standard deviation"
    if counts := [len(x) for one in floors.values() for x in one.values() if x]:
        said += f"; gray: untrained, the mean of n = {max(counts)}"
    return said + ("; hollow: the paper's." if study["paper"] else ".")


def name_of(study: Study, arm: str) -> str:
    """The factors of an arm as its name; any other name unchanged."""
    known = study["arms"].get(arm)
    return arm if known is None else ", ".join(known["factors"].values())


def draw_numbers(
    study: Study, values: Values, floors: Values, titles: Sequence[str]
) -> plt.Figure:
    """Draw measures in percent: bars or lines, hollow marks the paper's, gray untrained."""
    figure = study["figure"]
    x, series = figure["x"], figure.get("series")
    factors = {name: arm["factors"] for name, arm in study["arms"].items()}
    places = list(dict.fromkeys(one[x] for one in factors.values()))
    kinds = list(dict.fromkeys(one.get(series, "") for one in factors.values()))
    lines = figure["kind"] == "lines"
    rows = len(places) * len(kinds)
    height = 2.9 if lines else 1.0 + 0.22 * rows + 0.12 * len(places)
    made, axes = make_panels(len(titles), min(COLUMNS, len(titles)), (WIDTH, height))
    for axis, title in zip(axes.flat, titles, strict=False):
        for number, kind in enumerate(kinds):
            arms = {
                places.index(one[x]): name
                for name, one in factors.items()
                if one.get(series, "") == kind
            }
            draw_one = _line if lines else _bars
            draw_one(axis, _points(arms, study, values, title), number, len(kinds))
        floor = [np.mean(list(x.values())) for x in floors[title].values() if x]
        for value in floor:
            draw_floor = axis.axhline if lines else axis.axvline
            draw_floor(value, color=UNTRAINED, lw=1.2, ls="--")
        axis.set_title(drawable(title), fontsize=10)
        names = list(map(drawable, places))
        if lines:
            axis.set_xticks(range(len(places)), names, fontsize=8)
            axis.set_xlabel(drawable(x), fontsize=9)
            axis.set_ylabel(f"{drawable(title)}, %", fontsize=9)
        else:
            axis.set_yticks(range(len(places)), names, fontsize=8)
            axis.set_ylim(len(places) - 0.4, -0.6)  # the first one above
            axis.set_xlabel(f"{drawable(title)}, %", fontsize=9)
        axis.grid(axis="x" if lines else "y", visible=False)
    untrained = any(floors[title] for title in titles)
    if any(kinds) or untrained:
        legend_above(made, list(filter(None, kinds)), untrained=untrained)
    return made


def _points(arms: Mapping[int, str], study: Study, values: Values, title: str):
    """Place, mean and standard deviation of arms with runs; place and number of the paper."""
    found, paper = [], []
    for place, arm in sorted(arms.items()):
        seeds = list(values[title][arm].values())
        if seeds:
            spread = np.std(seeds, ddof=1) if len(seeds) > 1 else np.nan
            found.append((place, np.mean(seeds), spread))
        if title in study["paper"].get(arm, {}):
            paper.append((place, study["paper"][arm][title]))
    return np.array(found).reshape(-1, 3).T, np.array(paper).reshape(-1, 2).T


def _bars(axis: plt.Axes, points, number: int, count: int) -> None:
    (place, mean, spread), (known, paper) = points
    width = 0.8 / count
    shift = (number - (count - 1) / 2) * width
    style = {"color": f"C{number}", "alpha": 0.8, "error_kw": {"lw": 1, "capsize": 2}}
    axis.barh(place + shift, mean, 0.92 * width, xerr=spread, **style)
    axis.plot(paper, known + shift, "D", ms=5, mfc="white", mec="black")


def _line(axis: plt.Axes, points, number: int, count: int) -> None:
    (place, mean, spread), (known, paper) = points
    axis.errorbar(place, mean, spread, color=f"C{number}", marker="o", ms=4, capsize=2)
    axis.plot(known, paper, "D:", ms=5, color=f"C{number}", mfc="white", lw=1)


def read_curves(
    study: Study, done: Sequence[Job], pool: Path
) -> dict[str, list[tuple[str, Lines]]]:
    """The logged lines: x of the figure -> (its series, lines) of each run."""
    figure = study["figure"]
    factors = [study["arms"][job.arm]["factors"] for job in done]
    kinds = list(dict.fromkeys(one.get(figure.get("series"), "") for one in factors))
    groups: dict[str, list[tuple[str, Lines]]] = {}
    for job, own in zip(done, factors, strict=True):
        if lines := read_metrics(pool / job.folder):
            title = own.get(figure.get("x"), "")
            if figure["kind"] == "lines":  # x is a quantity: alone it says nothing
                title = f"{figure['x']}: {title}"
            # Every kind is in every group, so that it has one colour.
            runs = groups.setdefault(title, [(kind, []) for kind in kinds])
            runs.append((own.get(figure.get("series"), ""), lines))
    return groups


def draw_each(groups: Mapping[str, Any], shared: set[str]) -> list[plt.Figure]:
    """A picture of each group; the metrics in `shared` have the same scale."""
    drawn = [draw_groups({title: runs}, ()) for title, runs in groups.items()]
    for one in drawn:
        one.supxlabel("")
        for axis in one.axes:
            axis.set_xlabel("epoch", fontsize=9)
    for row, name in enumerate(METRICS):
        if name in shared:
            limits = np.array([one.axes[row].get_ylim() for one in drawn])
            for one in drawn:
                one.axes[row].set_ylim(limits[:, 0].min(), limits[:, 1].max())
    return drawn
