"""Textured backgrounds of scenes, from raw bits.

Only sums, products, square roots and remainders: they round alike on every machine, which
sines and Fourier transforms do not.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

_PERIOD = (8, 60)  # of stripes, in pixels
_CELLS = (4, 8, 16, 32, 64)  # of the noise: how many along the longer side


class Draws:
    """Random numbers from raw bits of PCG64, which NumPy keeps the same in all versions."""

    def __init__(self, *seed: int):  # of at least 0
        self._bits = np.random.PCG64(list(seed))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high)."""
        return low + (high - low) * (int(self._bits.random_raw()) >> 11) * 2.0**-53

    def integer(self, count: int) -> int:
        """An integer in [0, count); count is far below 2^32."""
        return (int(self._bits.random_raw()) >> 32) * count >> 32

    def bytes(self, shape: Sequence[int]) -> np.ndarray:
        """Independent bytes: uint8 of a shape."""
        count = int(np.prod(shape))
        words = np.atleast_1d(self._bits.random_raw(-(-count // 8))).astype("<u8")
        return words.view(np.uint8)[:count].reshape(shape)


def background(draws: Draws, height: int, width: int) -> np.ndarray:
    """A plain colour, a gradient, stripes or a checkerboard, in noise: uint8 [h, w, 3]."""
    first, second = draws.bytes((2, 3)).astype(np.float64)
    share = _pattern(draws, height, width)[..., None]
    strength = draws.uniform(0.1, 1.0)
    mixed = first + share * (second - first) + strength * _noise(draws, height, width)
    return np.clip(np.round(mixed), 0, 255).astype(np.uint8)


def _pattern(draws: Draws, height: int, width: int) -> np.ndarray:
    """The share of the second colour in each pixel, [height, width]."""
    kind = draws.integer(4)
    if kind == 0:
        return np.zeros((height, width))
    along, across = _planes(draws, height, width)
    if kind == 1:
        return (along - along.min()) / (along.max() - along.min())
    stripes = _wave(draws, along)
    return stripes if kind == 2 else np.abs(stripes - _wave(draws, across))


def _wave(draws: Draws, plane: np.ndarray) -> np.ndarray:
    """Bands of 0 and 1 with edges a few pixels wide."""
    phase = plane / draws.uniform(*_PERIOD) + draws.uniform()
    triangle = np.abs(phase % 1.0 - 0.5) * 2
    return np.clip((triangle - 0.5) * 5 + 0.5, 0, 1)


def _planes(draws: Draws, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """How far each pixel is along a random direction and across it, in pixels."""
    x = y = 0.0
    while not 0.01 < x * x + y * y < 1:
        x, y = draws.uniform(-1), draws.uniform(-1)
    length = np.sqrt(x * x + y * y)
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    along, across = columns * x + rows * y, columns * y - rows * x
    return along / length, across / length


def _noise(draws: Draws, height: int, width: int) -> np.ndarray:
    """Noise of all scales, the coarse the stronger; float64 [height, width, 3]."""
    total = np.zeros((height, width, 3))
    for cells in _CELLS:
        grid = [max(2, side * cells // max(height, width)) for side in (height, width)]
        image = Image.fromarray(draws.bytes((*grid, 3)))
        smooth = image.resize((width, height), Image.BICUBIC)
        total += (np.asarray(smooth) - 127.5) * (2 / cells) ** 0.5
    return total
