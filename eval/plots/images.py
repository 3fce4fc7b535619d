"""Sheets of images."""

from collections.abc import Collection, Sequence

import numpy as np
from matplotlib import pyplot as plt


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
