"""Pictures that a researcher looks at before believing a number."""

import base64
import io
import math
import os
import pathlib
from collections.abc import Sequence

import matplotlib
import numpy as np

from sp_jax.files import write_bytes

matplotlib.use("Agg")  # no display is needed
from matplotlib import pyplot as plt

plt.rcParams["text.parse_math"] = False  # Names may hold dollar signs.


def save_figure(figure: plt.Figure, path: str | os.PathLike) -> None:
    """Write a PNG, whole or not at all."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120, bbox_inches="tight")
    plt.close(figure)
    write_bytes(path, content.getvalue())


def drawable(name: str) -> str:
    """A name as matplotlib can draw it: what is not UTF-8 becomes a question mark."""
    return name.encode("utf-8", "replace").decode("utf-8")


def legend_above(
    figure: plt.Figure, handles: Sequence, names: Sequence[str], columns: int = 8
) -> None:
    """Name what all panels share, above them, where it covers nothing."""
    figure.legend(
        handles,
        [drawable(name) for name in names],
        loc="outside upper center",
        ncols=min(len(names), columns),
        fontsize=9,
        frameon=False,
    )


def embed(path: pathlib.Path) -> str:
    """A PNG as the address of an image in a page that needs no other file."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def image_grid(
    rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], side: float = 0.9
) -> plt.Figure:
    """A sheet of images [S, S, 3] in rows, with a title over each column."""
    figure, axes = plt.subplots(
        len(rows),
        len(titles),
        figsize=(side * len(titles), side * len(rows) + 0.3),
        squeeze=False,
        gridspec_kw={"wspace": 0.06, "hspace": 0.06},
    )
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            axes[row, column].imshow(image)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=8)
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
