"""Anchors: the boxes that are looked at around each position of a map."""

from collections.abc import Sequence

import numpy as np


def make_anchors(
    height: int,
    width: int,
    stride: int,
    sizes: Sequence[float],
    ratios: Sequence[float],
) -> np.ndarray:
    """Boxes of several sizes and shapes around the positions of a map.

    Args:
        height: rows of the map.
        width: its columns.
        stride: pixels of the image from one position to the next. The first is at 0, 0.
        sizes: square roots of the areas, in pixels.
        ratios: heights over widths.

    Returns:
        float32 [height * width * A, 4] with A = len(sizes) * len(ratios): by row, column,
        size and ratio. Those at a border are partly outside of the image.

    Source: Ren et al. 2015, https://arxiv.org/abs/1506.01497

    Example:
        >>> make_anchors(1, 2, 16, sizes=[32], ratios=[1.0]).tolist()
        [[-16.0, -16.0, 16.0, 16.0], [0.0, -16.0, 32.0, 16.0]]
    """
    size, ratio = np.meshgrid(np.float64(sizes), np.float64(ratios), indexing="ij")
    w = (size / np.sqrt(ratio)).reshape(-1)
    h = w * ratio.reshape(-1)
    cell = np.stack([-w, -h, w, h], axis=1) / 2
    y, x = stride * np.indices((height, width))
    place = np.stack([x, y, x, y], axis=-1).reshape(-1, 1, 4)
    return (place + cell).reshape(-1, 4).astype(np.float32)
