"""How similar images are: for the order of pairs, and for partners to choose from."""

import functools
import io
import pathlib

import numpy as np

from input_pipeline.mining.features import describe, find_features
from input_pipeline.pairs.origin import digest_json
from input_pipeline.stores import ImageStore
from sp_jax.files import write_bytes

_CLASSES = 8  # Whose shapes and colours are kept.
_CHUNK = 4096  # Pairs that are compared at a time.


def load_features(
    store: ImageStore,
    checkpoint: str | None,
    file: str | None,
    folder: pathlib.Path,
) -> np.ndarray:
    """Features of all images, float32 [N, D]; slow ones are cached in a folder."""
    if file:
        return find_features(store, checkpoint, file)[0]
    made_by = None
    if checkpoint:  # A run may train on; what else is in its folder does not matter.
        run = pathlib.Path(checkpoint).resolve()
        steps = run / "checkpoints"
        made_by = str(run), (steps if steps.is_dir() else run).stat().st_mtime
    path = folder / f".features-{digest_json([store.fingerprint, made_by])[:16]}.npy"
    if not path.exists():
        content = io.BytesIO()
        np.save(content, find_features(store, checkpoint, None)[0])
        write_bytes(path, content.getvalue())
    return np.load(path, mmap_mode="r")


class Likeness:
    """Cosines of the features of images."""

    def __init__(
        self, store: ImageStore, groups: np.ndarray, features: np.ndarray | None
    ) -> None:
        """Keep what is compared.

        Args:
          store: the images.
          groups: int [N], images of the same group are compared.
          features: float [N, D]; without them shapes and colours, of one group at a time.
        """
        self._groups, self._features = groups, features

        @functools.lru_cache(maxsize=_CLASSES)
        def of_group(group: int) -> tuple[np.ndarray, np.ndarray]:
            (rows,) = np.nonzero(groups == group)
            return rows, describe(store, rows)

        self._of_group = of_group

    def nearest(self, row: int, allowed: np.ndarray, count: int) -> np.ndarray:
        """Up to `count` allowed images, bool [N], of the group of `row`; most similar first."""
        if self._features is None:
            rows, features = self._of_group(int(self._groups[row]))
            here = features[np.searchsorted(rows, row)]
            rows, features = rows[allowed[rows]], features[allowed[rows]]
        else:
            (rows,) = np.nonzero(allowed)
            features, here = self._features[rows], self._features[row]
        cosine = features @ here / lengths(features)
        return rows[np.argsort(-cosine, kind="stable")[:count]]


def pair_cosines(
    features: np.ndarray, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """Cosine of the two images of each pair, float [P]."""
    blocks = np.array_split(np.stack([first, second]), len(first) // _CHUNK + 1, 1)
    found = []
    for a, b in blocks:
        a, b = features[a], features[b]
        found.append((a * b).sum(1) / lengths(a) / lengths(b))
    return np.concatenate(found)


def lengths(features: np.ndarray) -> np.ndarray:
    """The length of each row of float [N, D]; at least 1e-12, to divide by it."""
    return np.maximum(np.linalg.norm(features, axis=1), 1e-12)
