"""The nearest others among a million images: an index of faiss in place of all cosines."""

from typing import Any

import numpy as np

from sp_jax import extras, progress
from sp_jax.features import normalize

EXACT = 50_000  # Images of a group that are all compared.
_PROBES = 32  # Cells that are searched, of about 4 sqrt(N).
_TRAINING = 64  # Images a cell by which cells are found.
_CHUNK = 8192  # Images that are searched for at a time.
_SAMPLE = 1000  # Images of which the recall is measured.


def nearest_others(
    features: np.ndarray, k: int, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """As `sp_jax.neighbours.nearest_others`, but it may miss some; see `recall`.

    Rows of a group of more than 50,000 are put into cells by k-means, and 32 cells are
    searched for each row. Smaller groups are searched exactly.

    Raises:
      UserError: faiss is not installed.
    """
    extras.require("faiss", "--approximate")
    features = normalize(features)
    found = np.full((len(features), k), -1, np.int32)
    best = np.full((len(features), k), -np.inf, np.float32)
    order = np.argsort(groups, kind="stable")
    with progress.show("nearest neighbours", len(features)) as work:
        for rows in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
            if len(rows) == 1:
                continue
            index = _index(features, rows)
            for part in np.split(rows, range(_CHUNK, len(rows), _CHUNK)):
                near, score = _search(index, features, rows, part, k)
                found[part, : near.shape[1]] = near
                best[part, : near.shape[1]] = score
                work.update(len(part))
    return found, best


def _index(features: np.ndarray, rows: np.ndarray) -> Any:
    """An index of some rows."""
    import faiss

    index = faiss.IndexFlatIP(features.shape[1])
    if len(rows) > EXACT:
        cells = round(4 * len(rows) ** 0.5)
        kind = f"IVF{cells},Flat"
        index = faiss.index_factory(features.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = min(_PROBES, cells)
        drawn = np.random.default_rng(0).permutation(rows)[: _TRAINING * cells]
        with progress.show("k-means of the index"):  # minutes, for a million images
            index.train(features[np.sort(drawn)])
    index.add(features[rows])
    return index


def _search(
    index: Any, features: np.ndarray, rows: np.ndarray, part: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    # One more: each finds itself, though of copies maybe not first.
    score, place = index.search(features[part], min(k + 1, len(rows)))
    near = rows[place].astype(np.int32)
    score[(place < 0) | (near == part[:, None])] = -np.inf
    first = np.argsort(-score, axis=1, kind="stable")[:, :k]
    near, score = (np.take_along_axis(x, first, 1) for x in (near, score))
    near[~np.isfinite(score)] = -1
    return near, score


def recall(features: np.ndarray, found: np.ndarray, groups: np.ndarray) -> float:
    """Share of the k true nearest others that were found, of 1,000 rows drawn at random.

    Args:
      features: float [N, D].
      found: the neighbours of each row, int [N, k]; -1 where there is none.
      groups: int [N].
    """
    from sp_jax.neighbours import is_peer, nearest  # Starts jax: late.

    rows = np.random.default_rng(0).permutation(len(features))[:_SAMPLE]
    everyone = groups.astype(np.int32), np.arange(len(features), dtype=np.int32)
    tags = tuple(x[rows] for x in everyone), everyone
    true, _ = nearest(
        features[rows], features, found.shape[1], allowed=is_peer, tags=tags
    )
    there = true >= 0
    hits = (true[:, :, None] == found[rows][:, None, :]).any(2) & there
    return float(hits.sum() / there.sum())
