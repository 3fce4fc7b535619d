"""Marks for what may be wrong with a pair; they only help the person who decides."""

import functools

import numpy as np

from input_pipeline.curation.likeness import lengths
from input_pipeline.stores import ImageStore

# Sides of the windows of an image that are looked for in another one, and steps between them.
_WINDOWS = {1.0: 1, 0.95: 3, 0.9: 4, 0.85: 5, 0.8: 6, 0.7: 8, 0.6: 10}
_SIDE = 16  # Pixels of a window.
SAME_SOURCE = 0.9  # Correlation from which on two windows show the same: docs/data.md.
_SUSPECTS = 0.02  # Share of images whose class is doubted, at most: docs/data.md.
_CHUNK = 8192  # Images whose classes are compared at a time.


def same_source(store: ImageStore, first: int, second: int) -> float:
    """How well a part of one image, or of its mirror image, matches the whole other one.

    Returns:
      The largest correlation of gray windows; 0 without contrast.
    """
    windows = [_gray_windows(image) for image in store.read(np.array([first, second]))]
    best = 0.0
    for parts, (whole, *_) in (windows, windows[::-1]):
        mirrored = whole.reshape(_SIDE, _SIDE)[:, ::-1].reshape(-1)
        best = max(best, (parts @ np.stack([whole, mirrored], 1)).max())
    return float(best)


def _gray_windows(image: np.ndarray) -> np.ndarray:
    """Windows of an image at mean 0 and norm 1, float32 [n, 256]; the first is the whole."""
    gray = image.mean(-1, dtype=np.float32)
    found = []
    for weights in _weights(len(gray)):
        down = weights @ gray  # [steps, 16, S]
        both = down[:, None] @ weights.transpose(0, 2, 1)  # [steps, steps, 16, 16]
        found.append(both.reshape(-1, _SIDE**2))
    windows = np.concatenate(found)
    windows = windows - windows.mean(1, keepdims=True)
    norm = np.linalg.norm(windows, axis=1, keepdims=True)
    return windows / np.where(norm < _SIDE, np.inf, norm)  # Less is no contrast.


@functools.cache
def _weights(size: int) -> list[np.ndarray]:
    """The share of each pixel of a line in each of 16 parts of a window: [steps, 16, size]."""
    found = []
    for side, steps in _WINDOWS.items():
        start = np.linspace(0, 1 - side, steps)[:, None] * size
        edges = start + np.linspace(0, side * size, _SIDE + 1)
        pixels = np.arange(size)
        low = np.maximum(edges[:, :-1, None], pixels)
        high = np.minimum(edges[:, 1:, None], pixels + 1)
        found.append(np.maximum(high - low, 0) * _SIDE / (side * size))
    return [weights.astype(np.float32) for weights in found]


def suspects(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The class to which an image may belong rather than to its own: int [N]; -1: none.

    The mean feature of another class is nearer than that of its own class without the image;
    at most 2 % of all images are named, those with the largest difference.

    Args:
      features: float [N, D].
      labels: int [N]; -1: unlabelled.
    """
    known = np.flatnonzero(labels >= 0)
    number = np.bincount(labels[known])
    known = known[number[labels[known]] > 1]  # A class of one has no other mean.
    blocks = np.array_split(known, len(known) // _CHUNK + 1)
    sums = np.zeros((labels.max() + 1, features.shape[1]))
    for rows in blocks:
        np.add.at(sums, labels[rows], _unit(features[rows]))
    means = _unit(sums)
    other, gap = np.full(len(labels), -1), np.full(len(labels), -np.inf)
    for rows in blocks:
        unit, own = _unit(features[rows]), labels[rows]
        cosine = unit @ means.T
        cosine[np.arange(len(rows)), own] = -np.inf
        other[rows] = cosine.argmax(1)
        gap[rows] = cosine.max(1) - (unit * _unit(sums[own] - unit)).sum(1)
    least = max(0.0, np.quantile(gap[known], 1 - _SUSPECTS)) if len(known) else 0.0
    return np.where(gap > least, other, -1)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / lengths(x)[:, None]
