"""What host and device compute in the same way: which image a view shows, and its crop.

Written for numpy and jax.numpy, which are handed over: workers that read images start no jax.
"""

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

TRIES = 10  # as torchvision's RandomResizedCrop.get_params


class Crop(NamedTuple):
    """The random resized crop of one view; the fields are those of `sp_jax.augment.Augment`."""

    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    interpolation: str


def sources(swap: Any, views: int, per_pair: int, xp: ModuleType) -> Any:
    """Which image of its pair each view shows: integers [B, views].

    View i is of image i mod V of the pair's V = `per_pair` images; of two images, those of a
    pair whose `swap`, bool [B], is true change places.
    """
    source = xp.tile(xp.arange(views) % per_pair, (len(swap), 1))
    return xp.where(swap[:, None], 1 - source, source) if per_pair == 2 else source


def fit_crops(
    area: Any,
    aspect: Any,
    height: int | np.ndarray,
    width: int | np.ndarray,
    ratio: tuple[float, float],
    xp: ModuleType,
) -> tuple[Any, Any, Any]:
    """The first of several draws that fits into its image, or the largest centre crop.

    Args:
        area: of each draw in pixels [n, tries].
        aspect: its width / height.
        height: of all images, or of each [n].
        width: likewise.
        ratio: the range of the aspect.
        xp: numpy or jax.numpy.

    Returns:
        Height and width of each crop, int32 [n]; and whether a draw did fit. If none did, it
        is the largest crop whose aspect lies in the range, and its place is the centre.
    """
    # Both round halves to even, as Python's round does.
    widths = xp.round(xp.sqrt(area * aspect)).astype(xp.int32)
    heights = xp.round(xp.sqrt(area / aspect)).astype(xp.int32)
    fits = (widths > 0) & (widths <= np.reshape(width, (-1, 1)))
    fits &= (heights > 0) & (heights <= np.reshape(height, (-1, 1)))
    first = xp.argmax(fits, axis=1)[:, None]
    found = xp.any(fits, axis=1)
    largest = _centre_sizes(height, width, ratio)
    h, w = (
        xp.where(found, xp.take_along_axis(sides, first, 1)[:, 0], other)
        for sides, other in zip((heights, widths), largest, strict=True)
    )
    return h, w, found


def _centre_sizes(
    height: int | np.ndarray, width: int | np.ndarray, ratio: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Height and width of the largest crop whose width / height lies in `ratio`."""
    low, high = ratio
    h = np.where(
        np.divide(width, height) < low, np.round(np.divide(width, low)), height
    )
    w = np.where(
        np.divide(width, height) > high, np.round(np.multiply(height, high)), width
    )
    return h.astype(np.int32), w.astype(np.int32)
