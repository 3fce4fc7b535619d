"""The features that compare images: of an encoder, a file or a descriptor."""

import hashlib
from typing import Any

import numpy as np

from input_pipeline.mining import handmade_features, mutual_neighbours
from input_pipeline.stores import ImageStore
from sp_jax import progress
from sp_jax.errors import UserError

_CHUNK = 1024  # Images, between two steps of the progress.
_PIXELS = 2**22  # That are described at a time; each takes about 80 bytes.


def find_features(
    store: ImageStore,
    checkpoint: str | None,
    file: str | None,
    levels: bool | None = False,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Features of every image of the store, and their origin, as JSON.

    Args:
      store: of the images.
      checkpoint: a run or a checkpoint.
      file: an .npy file; without both a descriptor of shapes and colours is taken.
      levels: of a checkpoint those of `levels.find_levels`, in place of its features; None:
        if it has maps.
    """
    if checkpoint and file:
        raise UserError("Give --checkpoint or --features, not both.")
    if checkpoint:
        # They start jax, which only an encoder needs.
        import sp_jax
        from input_pipeline.mining import encoder
        from input_pipeline.mining.levels import find_levels
        from sp_jax.features import Extractor

        backbone = sp_jax.load(checkpoint)
        made_by = encoder.describe(backbone, checkpoint)
        if levels or (levels is None and backbone.module.levels()):
            return find_levels(backbone, store), made_by | {"levels": True}
        return Extractor(backbone).extract(store), made_by
    if file:
        features = mutual_neighbours.read_features(file, len(store))
        return features, {"features": hashlib.sha256(features).hexdigest()}
    parts = np.array_split(np.arange(len(store)), len(store) // _CHUNK + 1)
    parts = progress.track(parts, "describing images", "blocks")
    features = np.concatenate([describe(store, rows) for rows in parts])
    return features, {"descriptor": handmade_features.hog_and_colour.__name__}


def describe(store: ImageStore, rows: np.ndarray) -> np.ndarray:
    """Shapes and colours of some images, float32 [n, D], without an encoder."""
    side = store.images.shape[1]
    if side < 16:
        raise UserError("Without an encoder, images need sides of at least 16 pixels.")
    parts = np.array_split(rows, len(rows) * side**2 // _PIXELS + 1)
    describe_part = handmade_features.hog_and_colour
    return np.concatenate([describe_part(store.read(part)) for part in parts])
