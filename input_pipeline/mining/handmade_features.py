"""Hand-made features, to mine pairs without an encoder.

Histograms of oriented gradients (https://inria.hal.science/inria-00548512, the descriptor of
Dalal and Triggs, with hard bins) beside histograms of colours.
"""

import numpy as np

_CELLS, _BINS, _COLOURS = 8, 9, 4


def hog_and_colour(images: np.ndarray) -> np.ndarray:
    """Shapes and colours of images uint8 [N, S, S, 3], S at least 16.

    Returns:
      float32 [N, 2020] of length 1: gradients of 7 x 7 blocks of 2 x 2 cells, and with half
      of their weight colours of the four quarters.
    """
    shapes, colours = _unit(_gradients(images)), _unit(_colours(images))
    return _unit(np.concatenate([shapes, 0.5 * colours], axis=1))


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-6)


def _gradients(images: np.ndarray) -> np.ndarray:
    """Histograms of the directions of edges, blocks at length 1: float32 [n, 1764]."""
    gray = images.mean(-1, dtype=np.float32) / 255
    down, right = np.gradient(gray, axis=(1, 2))
    strength = np.hypot(down, right)
    turn = np.arctan2(down, right) % np.pi
    bins = np.minimum((turn / np.pi * _BINS).astype(int), _BINS - 1)
    votes = strength[..., None] * (bins[..., None] == np.arange(_BINS))
    edges = np.linspace(0, gray.shape[1], _CELLS + 1).astype(int)[:-1]
    cells = np.add.reduceat(np.add.reduceat(votes, edges, 1), edges, 2)
    blocks = [
        cells[:, i : i + _CELLS - 1, j : j + _CELLS - 1] for i in (0, 1) for j in (0, 1)
    ]
    blocks = _unit(np.concatenate(blocks, axis=-1))
    # Clipped and scaled again, so that one strong edge does not hide the others.
    return _unit(np.minimum(blocks, 0.2)).reshape(len(images), -1)


def _colours(images: np.ndarray) -> np.ndarray:
    """Square roots of the shares of 64 colours in each quarter: float32 [n, 256]."""
    levels = (images // (256 // _COLOURS)).astype(np.int32)
    number = levels @ np.array([_COLOURS**2, _COLOURS, 1], np.int32)
    middle, shares = images.shape[1] // 2, []
    for rows in (slice(None, middle), slice(middle, None)):
        for columns in (slice(None, middle), slice(middle, None)):
            quarter = number[:, rows, columns].reshape(len(images), -1)
            hits = [(quarter == i).mean(1) for i in range(_COLOURS**3)]
            shares.append(np.stack(hits, axis=1))
    # The cosine of square roots is the Bhattacharyya coefficient of the histograms.
    return np.sqrt(np.concatenate(shares, axis=1)).astype(np.float32)
