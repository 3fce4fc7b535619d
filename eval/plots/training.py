"""Training curves: the metrics that runs have logged, over their epochs."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from matplotlib import pyplot as plt

from eval.plots.figure import drawable, legend_above, make_panels

Lines = Sequence[Mapping[str, Any]]  # of a metrics.jsonl

COLUMNS = 6  # of curves beside each other, at most
METRICS = {"loss": "loss", "effective_rank": "effective rank"}


def draw_metric(runs: Mapping[str, Sequence[Lines]], name: str) -> plt.Figure:
    """A metric over epochs; results of evaluators have a dot where they were measured.

    Runs are label -> lines of each of its runs, which have one colour.
    """
    figure, ((axis,),) = make_panels(1, 1, (3.6, 2.8))
    for number, group in enumerate(runs.values()):
        for lines in group:
            marker = "o" if "/" in name else None
            _draw(axis, lines, name, color=f"C{number}", marker=marker, ms=3)
    axis.set_title(drawable(name.replace("_", " ")), fontsize=10)
    axis.set_xlabel("epoch", fontsize=9)
    legend_above(figure, list(runs), 2)
    return figure


def draw_groups(
    groups: Mapping[str, Sequence[tuple[str, Lines]]], shared: Collection[str]
) -> plt.Figure:
    """Loss above rank, with a column for each group of runs.

    Args:
      groups: title -> (kind, lines) of each of its runs; a kind has one colour.
      shared: of `METRICS`, those with one scale in all groups.
    """
    kinds = list(dict.fromkeys(kind for runs in groups.values() for kind, _ in runs))
    columns = min(COLUMNS, len(groups))
    blocks, rows = -(-len(groups) // columns), len(METRICS)
    size = (max(2.1, 4.5 / columns), 2.1)
    figure, axes = make_panels(blocks * rows * columns, columns, size)
    # [groups, metrics]; the last block may be filled in part.
    cells = axes.reshape(blocks, rows, columns).swapaxes(1, 2).reshape(-1, rows)
    for number, (name, text) in enumerate(METRICS.items()):
        if name in shared:
            for axis in cells[1 : len(groups), number]:
                axis.sharey(cells[0, number])
        for axis in cells[::columns, number]:
            axis.set_ylabel(text, fontsize=9)
    for (title, runs), panels in zip(groups.items(), cells, strict=False):
        panels[0].set_title(drawable(title), fontsize=9)
        for kind, lines in runs:
            for axis, name in zip(panels, METRICS, strict=True):
                _draw(axis, lines, name, color=f"C{kinds.index(kind)}", lw=1)
    for axis in cells[len(groups) :].flat:
        axis.set_axis_off()
    figure.supxlabel("epoch", fontsize=9)
    if any(kinds):
        legend_above(figure, kinds)
    return figure


def _draw(axis: plt.Axes, lines: Lines, name: str, **style: Any) -> None:
    """A metric of a run over its epochs."""
    points = [(line["epoch"], line[name]) for line in lines if name in line]
    if points:
        axis.plot(*zip(*points, strict=True), **style)
