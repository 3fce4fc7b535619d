"""Sheets of images: any grid of them, and pairs beside their augmented views."""

import math
import os
from collections.abc import Collection, Sequence

import numpy as np
from matplotlib import pyplot as plt

from eval.plots.figure import save_figure


def image_grid(
    rows: Sequence[Sequence[np.ndarray | None]],
    titles: Sequence[str | None],
    side: float = 0.9,
    framed: Collection[tuple[int, int]] = (),
) -> plt.Figure:
    """A sheet of images [S, S, 3] in rows, with a title over each column.

    Args:
      rows: of images; the last one may be shorter. None stays empty.
      titles: of the columns; None makes a narrow one, a gap.
      side: of an image, in inches.
      framed: rows and columns of images with a green frame.
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
        axis.set_title(title or "", fontsize=8)
    return figure


def save_views(
    path: str | os.PathLike,
    images: np.ndarray,
    views: Sequence[np.ndarray],
    mean: Sequence[float],
    std: Sequence[float],
) -> None:
    """Draw pairs beside their augmented views, one pair a row.

    Args:
        path: of the PNG.
        images: uint8 [n, V, S, S, 3].
        views: for each view normalised float [n, s, s, 3], or patches of a square
            grid [n, g * g, p, p, 3].
        mean: of each channel, as subtracted.
        std: of each channel, as divided by.
    """
    shown = [
        _tile(np.clip(np.asarray(v) * np.array(std) + np.array(mean), 0, 1))
        for v in views
    ]
    rows = [[*images[i], *(view[i] for view in shown)] for i in range(len(images))]
    stored = ["image"] if images.shape[1] == 1 else ["first", "second"]
    titles = stored + [f"view {i + 1}" for i in range(len(views))]
    save_figure(image_grid(rows, titles), path)


def _tile(view: np.ndarray) -> np.ndarray:
    """Patches [n, g * g, p, p, 3] side by side with white lines: [n, s, s, 3]."""
    if view.ndim == 4:
        return view
    n, count, p = view.shape[:3]
    grid = math.isqrt(count)
    framed = np.pad(view, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1.0)
    rows = framed.reshape(n, grid, grid, p + 2, p + 2, 3).swapaxes(2, 3)
    return rows.reshape(n, grid * (p + 2), grid * (p + 2), 3)
