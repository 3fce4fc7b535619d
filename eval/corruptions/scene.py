"""Images to corrupt, with the data that the corruptions need."""

from typing import NamedTuple

import jax
import numpy as np

from input_pipeline.stores import ImageStore
from sp_jax.errors import UserError

_SMALLEST = 16  # pixels: the finest grid of `texture.shuffle`

Array = np.ndarray | jax.Array


class Scene(NamedTuple):
    """Images, or one image where a change is written (then without the first axis)."""

    images: Array  # uint8 [n, S, S, 3]
    # int64 [n], the number of each image, from which its randomness is drawn.
    numbers: Array
    others: Array  # uint8 [n, S, S, 3], for each image another one of its store
    # uint8 [n, S, S], 255 where only the object is seen, 0 where only the background is; None
    # where that is not known.
    alpha: Array | None = None
    # uint8 [n, 3], the plain colour of the background; None like alpha.
    behind: Array | None = None


def make_scene(store: ImageStore, rows: np.ndarray, seed: int) -> Scene:
    """Read images of a store by rows int [n], which are their numbers, too.

    The seed chooses the other image that each has beside it. Errors: see `check_images`.
    """
    check_images(store)
    rows = np.asarray(rows, np.int64)
    # A circle through all images in random order: nobody is beside itself. Raw bits,
    # because NumPy promises the same ones in every version.
    order = np.argsort(np.random.PCG64(seed).random_raw(len(store)), kind="stable")
    beside = np.empty_like(order)
    beside[order] = np.roll(order, 1)
    alpha = behind = None
    if has_alpha(store):
        ids = [store.ids[row] for row in rows]
        alpha, behind = store.read_alpha(ids, store.images.shape[1])
    return Scene(store.read(rows), rows, store.read(beside[rows]), alpha, behind)


def has_alpha(store: ImageStore) -> bool:
    """Whether the places of the objects of a store are known."""
    return store.read_alpha is not None


def check_images(store: ImageStore) -> None:
    """Raise UserError if a store's images are too small, or there is only one."""
    size = store.images.shape[1]
    if len(store) < 2 or size < _SMALLEST:
        raise UserError(
            f"Corruptions need two images of {_SMALLEST} pixels or more; {store.name} "
            f"{store.split} has {len(store):,} of {size} pixels."
        )
