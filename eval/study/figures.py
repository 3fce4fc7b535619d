"""The pictures of a study: its numbers with the paper's, and the curves of its runs."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D

from eval import invariance_figure, pictures
from eval.detection import figure as detection_figure
from eval.detection import pictures as detection_pictures
from eval.study.numbers import Values, read_result
from eval.study.plan import Job
from sp_jax.train.writer import read_metrics

# Pages are about this wide, in inches; what is wider would be shrunk until nobody can read it.
WIDTH = 16.0
COLUMNS = 3  # of pictures of measures, at most
PLACES = 6  # of curves beside each other, at most
_CURVES = {"loss": "loss", "effective_rank": "effective rank"}


def draw(
    study: Mapping[str, Any],
    done: Sequence[Job],
    pool: pathlib.Path,
    values: Values,
    out: pathlib.Path,
) -> list[tuple[str, pathlib.Path]]:
    """Draw what there are runs for.

    Args:
        study: see `plan.read_study`.
        done: its complete runs.
        pool: folder of all runs.
        values: what they measured.
        out: where the pictures go.

    Returns:
        Title and file of each.
    """
    if not done:
        return []
    figure = study["figure"]
    drawn = []

    def save(name: str, title: str, made: plt.Figure) -> None:
        pictures.save_figure(made, out / f"{name}.png")
        drawn.append((title, out / f"{name}.png"))

    if figure["kind"] == "invariance":
        results = _by_arm(study, done, lambda job: _result(pool, job, figure["result"]))
        save("invariance", "Invariances", invariance_figure.draw_figure(results))
    elif figure["kind"] == "detection":
        where = f"detection/{figure['result']}"
        curves = _by_arm(
            study,
            done,
            lambda job: (
                detection_figure.read_detection(pool / job.folder / where).curves
            ),
        )
        made = detection_pictures.draw_curves(curves, by_class=True)
        save("detection", "Precision over recall", made)
    if "x" in figure:
        title = "As a figure" + (", with the paper's" if study["paper"] else "")
        save("numbers", title, draw_numbers(study, values))
    if made := draw_training(study, done, pool):
        save("curves", "Training", made)
    return drawn


def _result(pool: pathlib.Path, job: Job, name: str) -> dict[str, float]:
    return read_result(pool / job.folder, name)["result"]


def _by_arm(study, done, read) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for job in done:
        found.setdefault(name_of(study, job.arm), []).append(read(job))
    return found


def name_of(study: Mapping[str, Any], arm: str) -> str:
    """An arm by its factors."""
    return ", ".join(study["arms"][arm]["factors"].values())


def draw_numbers(study: Mapping[str, Any], values: Values) -> plt.Figure:
    """Each measure in percent: bars or lines with the deviation, hollow marks the paper's."""
    figure = study["figure"]
    x, series = figure["x"], figure.get("series")
    titles = [title for title, m in study["measures"].items() if m["percent"]]
    places = list(dict.fromkeys(a["factors"][x] for a in study["arms"].values()))
    kinds = list(
        dict.fromkeys(a["factors"].get(series, "") for a in study["arms"].values())
    )
    width = max(4.0, 0.75 * len(places) + 1.2)
    columns = max(1, min(COLUMNS, len(titles), int(WIDTH // width)))
    rows = -(-len(titles) // columns)
    made, axes = plt.subplots(
        rows,
        columns,
        figsize=(width * columns, (2.5 if columns == 1 else 3.3) * rows),
        squeeze=False,
        sharex=columns == 1,
        layout="constrained",
    )
    for axis, title in zip(axes.flat, titles, strict=False):
        for number, kind in enumerate(kinds):
            arms = {
                places.index(arm["factors"][x]): name
                for name, arm in study["arms"].items()
                if arm["factors"].get(series, "") == kind
            }
            draw_one = _bars if figure["kind"] != "lines" else _line
            draw_one(axis, arms, kind, number, len(kinds), study, values, title)
        turn = {"rotation": 30, "ha": "right"} if len(places) > 5 else {}
        axis.set_xticks(range(len(places)), places, fontsize=8, **turn)
        axis.set_title(title, fontsize=10)
        axis.tick_params(labelsize=8)
        axis.grid(axis="y", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes.flat[len(titles) :]:
        axis.set_axis_off()
    if any(kinds):
        pictures.legend_above(made, *axes[0, 0].get_legend_handles_labels())
    made.supxlabel(x, fontsize=9)
    made.supylabel("%", fontsize=9)
    return made


def _points(arms: Mapping[int, str], study, values: Values, title: str):
    """Places, means and deviations of the arms with runs; places and numbers of the paper."""
    found, paper = [], []
    for place, arm in sorted(arms.items()):
        seeds = list(values[title][arm].values())
        if seeds:
            spread = np.std(seeds, ddof=1) if len(seeds) > 1 else 0.0
            found.append((place, np.mean(seeds), spread))
        if title in study["paper"].get(arm, {}):
            paper.append((place, study["paper"][arm][title]))
    return np.array(found).reshape(-1, 3).T, np.array(paper).reshape(-1, 2).T


def _bars(axis, arms, kind, number, kinds, study, values, title) -> None:
    (place, mean, spread), (known, paper) = _points(arms, study, values, title)
    width = 0.8 / kinds
    shift = (number - (kinds - 1) / 2) * width
    axis.bar(
        place + shift,
        mean,
        0.92 * width,
        yerr=spread,
        color=f"C{number}",
        alpha=0.8,
        label=kind,
        error_kw={"lw": 1, "capsize": 2},
    )
    axis.plot(known + shift, paper, "D", ms=5, mfc="white", mec="black")


def _line(axis, arms, kind, number, kinds, study, values, title) -> None:
    (place, mean, spread), (known, paper) = _points(arms, study, values, title)
    axis.errorbar(
        place, mean, spread, color=f"C{number}", marker="o", ms=4, capsize=2, label=kind
    )
    axis.plot(known, paper, "D:", ms=5, color=f"C{number}", mfc="white", lw=1)


def draw_training(
    study: Mapping[str, Any], done: Sequence[Job], pool: pathlib.Path
) -> plt.Figure | None:
    """Loss and rank of each run: a column for each x of the figure, colours its series."""
    figure = study["figure"]
    runs = [(job, read_metrics(pool / job.folder)) for job in done]
    runs = [(job, lines) for job, lines in runs if lines]
    if not runs:
        return None
    factors = {name: arm["factors"] for name, arm in study["arms"].items()}
    x, series = figure.get("x"), figure.get("series")
    places = list(dict.fromkeys(factors[job.arm].get(x, "") for job, _ in runs))
    kinds = list(dict.fromkeys(factors[job.arm].get(series, "") for job, _ in runs))
    columns = min(PLACES, len(places))
    blocks = -(-len(places) // columns)
    made, axes = plt.subplots(
        blocks * len(_CURVES),
        columns,
        figsize=(max(2.1 * columns, 4.5), 4.2 * blocks),
        squeeze=False,
        layout="constrained",
    )
    # Of each place: its curves, one below the other.
    cells = axes.reshape(blocks, len(_CURVES), columns).swapaxes(1, 2)
    cells = cells.reshape(-1, len(_CURVES))
    # One scale for the panels, but not for the losses of different methods.
    recipes = {study["arms"][job.arm]["config"] for job, _ in runs}
    for number, name in enumerate(_CURVES):
        if name != "loss" or len(recipes) == 1:
            for axis in cells[1 : len(places), number]:
                axis.sharey(cells[0, number])
    for job, lines in runs:
        kind = factors[job.arm].get(series, "")
        place = places.index(factors[job.arm].get(x, ""))
        for axis, name in zip(cells[place], _CURVES, strict=True):
            points = [(line["epoch"], line[name]) for line in lines if name in line]
            axis.plot(
                *zip(*points, strict=True),
                color=f"C{kinds.index(kind)}",
                lw=1,
            )
    for axis in axes.flat:
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    for number, name in enumerate(_CURVES.values()):
        for axis in cells[::columns, number]:
            axis.set_ylabel(name, fontsize=9)
    for place, title in zip(cells, places, strict=False):
        # Where x is a quantity, its value alone says nothing.
        title = f"{x}: {title}" if figure["kind"] == "lines" else title
        place[0].set_title(title, fontsize=9)
    for place in cells[len(places) :]:
        for axis in place:
            axis.set_axis_off()
    made.supxlabel("epoch", fontsize=9)
    if any(kinds):
        handles = [Line2D([], [], color=f"C{i}") for i in range(len(kinds))]
        pictures.legend_above(made, handles, kinds)
    return made
