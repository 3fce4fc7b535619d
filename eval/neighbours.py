"""The nearest others of every image of a set, exactly, in blocks that fit the accelerator."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from eval.features import map_rows, normalize

# Largest block of similarities, in elements (256 MiB of float32).
_BUDGET = 2**26


def nearest_others(
    features: np.ndarray, k: int, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k most similar other rows of each row.

    All N^2 cosines are computed, but only a block of them exists at a time: the memory is
    that of the features and 256 MiB.

    Args:
      features: float [N, D], of any length: the cosine is taken.
      k: number of neighbours, below N.
      groups: int [N]; only rows of the same group are neighbours. None: all are.

    Returns:
      Row numbers int32 [N, k] and cosines float32 [N, k], the most similar first. Where a
      group has too few rows the cosine is -inf.

    Raises:
      ValueError: k is not in [1, N - 1].

    Example:
      >>> rows, cosines = nearest_others(np.array([[1.0, 0], [0, 1], [1, 0.1]]), 1)
      >>> rows[:, 0].tolist()
      [2, 2, 0]
    """
    if not 1 <= k < len(features):
        raise ValueError(f"k={k} neighbours of {len(features)} rows.")
    unit = normalize(features)
    if groups is None:
        groups = np.zeros(len(unit))
    groups = np.unique(groups, return_inverse=True)[1].astype(np.int32)
    bank, kinds = jax.device_put(unit), jax.device_put(groups)
    return map_rows(
        lambda rows: _nearest(
            bank, kinds, unit[rows], groups[rows], rows.astype(np.int32), k
        ),
        len(unit),
        min(1024, max(1, _BUDGET // len(unit))),
    )


@functools.partial(jax.jit, static_argnames="k")
def _nearest(
    bank: jax.Array,
    kinds: jax.Array,
    query: jax.Array,
    kind: jax.Array,
    rows: jax.Array,
    k: int,
) -> tuple[jax.Array, jax.Array]:
    # Full precision: near ties would change places.
    similarity = jnp.dot(query, bank.T, precision=jax.lax.Precision.HIGHEST)
    allowed = (kind[:, None] == kinds) & (rows[:, None] != jnp.arange(len(bank)))
    cosines, found = jax.lax.top_k(jnp.where(allowed, similarity, -jnp.inf), k)
    return found, cosines
