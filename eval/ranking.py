"""Quality of a ranking by cosine: recall@k and average precision."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sp_jax import progress
from sp_jax.features import map_rows, normalize

# Largest similarity matrix of one call, in elements (64 MiB of float32; sorted beside it).
_BUDGET = 2**24


def answer_ranks(features: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Rank of the one right answer to each query, for every ordered pair of views.

    The cosine of features float [N, D] is taken; gallery int [A, G] has row numbers: view a of
    thing g, such as a's drawing of it.

    Returns:
      int64 [A (A - 1), G], from 1: where the drawing of the same thing stands among the
      other artist's G. Of equal cosines the lower row is first.
    """
    # NumPy: a few small products, the same on every accelerator.
    views = [normalize(features[rows]) for rows in gallery]
    ranks = []
    for query, other in progress.track(
        list(itertools.permutations(views, 2)), "ranking", "pairs of views"
    ):
        cosine = query @ other.T
        own = np.diag(cosine)[:, None]
        before = np.tril(cosine == own, -1)  # As near, and in a lower row.
        ranks.append(1 + (cosine > own).sum(axis=1) + before.sum(axis=1))
    return np.array(ranks)


def leave_one_out(
    features: np.ndarray, labels: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rank all other images for each image; those with its label are relevant.

    All features float [N, D] are on the device at once, and a block of the N^2 cosines. An
    image alone with its label is no query, but can be found. k is below N.

    Returns:
      For the Q queries, in the order of the rows: bool [Q, k], whether each neighbour is
      relevant, the nearest first, of equal ones the lower row first; and float32 [Q], the
      average precision of the whole ranking of N - 1 images, where equal cosines share
      one threshold, as in scikit-learn's average_precision_score.
    """
    _, label, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    label, sizes = label.astype(np.int32), sizes.astype(np.int32)
    # Rows of one label stand together in `order`, from `first` on.
    order = np.argsort(label, kind="stable").astype(np.int32)
    first = (np.cumsum(sizes) - sizes).astype(np.int32)
    unit = normalize(features)
    bank = jax.device_put((unit, label, order))
    queries = np.flatnonzero(sizes[label] > 1).astype(np.int32)

    def rank(at: np.ndarray) -> tuple[jax.Array, jax.Array]:
        rows = queries[at]
        kind = label[rows]
        group = first[kind], sizes[kind]
        return _rank(bank, unit[rows], rows, group, k=k, largest=int(sizes.max()))

    height = min(256, max(1, _BUDGET // len(unit)))
    return map_rows(rank, len(queries), height, "ranking")


@functools.partial(jax.jit, static_argnames=("k", "largest"))
def _rank(
    bank: Any, query: Any, rows: Any, group: Any, *, k: int, largest: int
) -> tuple[jax.Array, jax.Array]:
    unit, label, order = bank
    first, size = (x[:, None] for x in group)
    rows = rows[:, None]
    cosine = jnp.dot(query, unit.T, precision=jax.lax.Precision.HIGHEST)
    cosine = jnp.where(rows == jnp.arange(len(unit)), -jnp.inf, cosine)
    near = jax.lax.top_k(cosine, k)[1]
    relevant = label[near] == label[rows]

    position = jnp.arange(largest)
    member = order[jnp.minimum(first + position, len(unit) - 1)]
    own = jnp.take_along_axis(cosine, member, axis=1)
    own = jnp.where(position < size, own, -jnp.inf)
    ranking, own = (jnp.sort(_as_integer(x), axis=1) for x in (cosine, own))
    # The number of images, and of relevant ones, that are as near as each relevant one.
    not_below = len(unit) - jax.vmap(jnp.searchsorted)(ranking, own)
    relevant_not_below = largest - jax.vmap(jnp.searchsorted)(own, own)
    known = own > _as_integer(jnp.float32(-jnp.inf))
    precision = jnp.where(known, relevant_not_below / not_below, 0.0)
    return relevant, precision.sum(axis=1) / (size[:, 0] - 1)


def _as_integer(x: jax.Array) -> jax.Array:
    """int32 in the order of float32: XLA:CPU sorts those 4 x faster."""
    x = jnp.where(x == 0, 0.0, x)  # -0 is equal to 0.
    bits = jax.lax.bitcast_convert_type(x, jnp.int32)
    return jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
