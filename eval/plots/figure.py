"""The parts of every figure: panels or images, bands, legend, file."""

import io
import os
from collections.abc import Collection, Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D

from sp_jax.files import write_bytes


def make_panels(
    count: int, columns: int, size: tuple[float, float], **options
) -> tuple[plt.Figure, np.ndarray]:
    """A figure of `count` panels in rows, each of a size in inches; its axes [rows, columns].

    The rest of the last row stays empty. The options are those of `plt.subplots`.
    """
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(size[0] * columns, size[1] * rows),
        squeeze=False,
        layout="constrained",
        **options,
    )
    for axis in axes.flat:
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    return figure, axes


def image_grid(
    rows: Sequence[Sequence[np.ndarray | None]],
    titles: Sequence[str | None],
    side: float = 0.9,
    framed: Collection[tuple[int, int]] = (),
    caption: str = "",
) -> plt.Figure:
    """A sheet of images [S, S, 3] in rows, with a title over each column; a side is in inches.

    The caption stands below. None instead of an image stays empty, as the end of a shorter
    last row does; instead of a title it makes a narrow column, a gap. `framed` are rows and
    columns of green frames.
    """
    widths = [0.3 if title is None else 1.0 for title in titles]
    figure, axes = plt.subplots(
        len(rows),
        len(titles),
        figsize=(side * sum(widths), side * len(rows) + 0.3),
        squeeze=False,
        gridspec_kw={"wspace": 0.06, "hspace": 0.06, "width_ratios": widths},
    )
    for line, images in zip(axes, rows, strict=True):
        for axis, image in zip(line, images, strict=False):
            if image is not None:
                axis.imshow(image)
    for place, axis in np.ndenumerate(axes):
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(color="#1a9850", linewidth=2.5, visible=place in framed)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title or "", fontsize=10)
    # Below the last row, whatever its height; saving cuts to what is drawn.
    bottom = axes[-1, 0].get_position().y0 - 0.05 / figure.get_figheight()
    figure.text(0.5, bottom, drawable(caption), ha="center", va="top", fontsize=10)
    return figure


def draw_band(
    axis: plt.Axes, x: np.ndarray, seeds: np.ndarray, color: str, **style
) -> None:
    """The mean of some seeds [S, n] over x [n] as a line, and their range as a band."""
    axis.fill_between(x, seeds.min(0), seeds.max(0), color=color, alpha=0.2, lw=0)
    axis.plot(x, seeds.mean(0), color=color, **style)


UNTRAINED = "#888888"  # the colour of a network without a step


def legend_above(
    figure: plt.Figure,
    names: Sequence[str],
    columns: int = 8,
    untrained: bool = False,
) -> None:
    """Name the colours C0, C1 and so on above all panels, where the legend hides nothing.

    `untrained` names the gray of a network without a step, too.
    """
    colours = [f"C{i}" for i in range(len(names))]
    if untrained:
        names, colours = [*names, "untrained"], [*colours, UNTRAINED]
    figure.legend(
        # Given apart: matplotlib leaves labels out that begin with an underscore.
        [Line2D([], [], color=colour, lw=2) for colour in colours],
        [drawable(name) for name in names],
        loc="outside upper center",
        ncols=min(len(names), columns),
        fontsize=9,
        frameon=False,
    )


def drawable(name: str) -> str:
    """A name that matplotlib can draw: bytes that are not UTF-8 become question marks."""
    return name.encode("utf-8", "replace").decode("utf-8")


def save_figure(figure: plt.Figure, path: str | os.PathLike) -> None:
    """Write a PNG, completely or not at all, and close the figure."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120, bbox_inches="tight")
    plt.close(figure)
    write_bytes(path, content.getvalue())
