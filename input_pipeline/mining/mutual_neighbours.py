"""Semantic pairs without labels: mutual nearest neighbours, as a table with scores."""

import collections
import os
import zipfile

import numpy as np

from sp_jax.errors import UserError

_CHUNK = 4096  # Rows that are converted at a time.


def read_features(path: str | os.PathLike[str], count: int) -> np.ndarray:
    """Read features that another program made: an .npy file of real numbers of any type.

    Returns:
      float32 [count, D], each row divided by its largest magnitude: the cosines are the
      same, and no number is too large or too small for them.

    Raises:
      UserError: it is no .npy file, damaged, has another shape, or holds other values.
    """
    if zipfile.is_zipfile(path):
        raise UserError(
            f"{path} is an archive of arrays: give an .npy file, with numpy.save of the one "
            "that holds the features."
        )
    # Mapped: a header may claim more than a memory holds.
    try:
        given = np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise UserError(
            f"Cannot read the features {path} ({error}): give an .npy file."
        ) from error
    except Exception as error:  # NumPy raises many types.
        raise UserError(
            f"{path} is not an .npy file of numbers, or it is damaged: write it with "
            "numpy.save."
        ) from error
    if given.ndim != 2 or len(given) != count or not given.shape[1]:
        raise UserError(
            f"{path} holds {list(given.shape)}, not a row of numbers for each of the {count} "
            "images: save float32 [images, features], in the order of the store."
        )
    if given.dtype.kind not in "fiub":  # bfloat16 reads as void.
        raise UserError(
            f"{path} holds values of the type {given.dtype}, not real numbers: save them as "
            "float32."
        )
    features = np.empty(given.shape, np.float32)
    for start in range(0, count, _CHUNK):
        part = given[start : start + _CHUNK].astype(np.float64)
        largest = np.abs(part).max(axis=1, keepdims=True)
        wrong = np.flatnonzero(~np.isfinite(largest))
        if len(wrong):
            raise UserError(
                f"{path}, row {start + wrong[0]} (from 0), holds NaN or an infinite number: "
                "every image needs finite features."
            )
        features[start : start + _CHUNK] = part / np.where(largest > 0, largest, 1)
    return features


def mutual_pairs(
    neighbours: np.ndarray,
    similarity: np.ndarray,
    *,
    band: tuple[float, float] = (-1.0, 1.0),
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of images each of which is among the nearest of the other, the best first.

    Of each image there are the nearest others, int [N, k], and their cosines.
    The band is the least and the largest similarity of a pair, both allowed. A top below 1
    leaves out near-duplicates, which teach no more than an augmentation does.

    Returns:
      first, second: int64 [P], first < second; score: float32 [P], falling.

    Raises:
      UserError: no pair is left.

    Example:
      >>> neighbours = np.array([[1], [0], [1]])
      >>> first, second, score = mutual_pairs(neighbours, np.array([[0.9], [0.9], [0.8]]))
      >>> first.tolist(), second.tolist()
      ([0], [1])
    """
    count, k = neighbours.shape
    rows = np.repeat(np.arange(count), k)
    others, scores = neighbours.reshape(-1).astype(np.int64), similarity.reshape(-1)
    found = np.isfinite(scores)  # A group may have had too few.
    rows, others, scores = rows[found], others[found], scores[found]
    scores = np.clip(scores, -1, 1)  # rounding puts cosines of equal features above 1
    mutual = np.isin(rows * count + others, others * count + rows)
    wanted = mutual & (rows < others) & (scores >= band[0]) & (scores <= band[1])
    rows, others, scores = rows[wanted], others[wanted], scores[wanted]
    if not len(rows):
        raise UserError(
            f"No two images are among each other's {k} nearest with a similarity from "
            f"{band[0]:g} to {band[1]:g}: widen the band, or allow more neighbours."
        )
    order = np.lexsort((others, rows, -scores))
    return rows[order], others[order], scores[order].astype(np.float32)


def limit_uses(first: np.ndarray, second: np.ndarray, max_uses: int) -> np.ndarray:
    """Choose pairs so that no image is in too many: some are near to all ("hubs").

    A pair is taken, bool [P], if both of its images are still free; the better ones come first.

    Example:
      >>> limit_uses(np.array([0, 0, 2]), np.array([1, 2, 3]), 1).tolist()
      [True, False, True]
    """
    uses = collections.Counter()
    taken = np.zeros(len(first), bool)
    for i, pair in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        if all(uses[image] < max_uses for image in pair):
            uses.update(pair)
            taken[i] = True
    return taken


def chance(labels: np.ndarray) -> float:
    """Probability that two different random images share their label."""
    counts = np.bincount(labels).astype(float)
    total = counts.sum()
    return float((counts * (counts - 1)).sum() / (total * (total - 1)))


def precision_curve(same: np.ndarray) -> np.ndarray:
    """Share of right pairs, bool [P], among the first n, for n = 1 ... P."""
    return np.cumsum(same) / np.arange(1, len(same) + 1)
