"""The nearest rows by cosine, exactly, in blocks that fit the accelerator."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sp_jax import progress
from sp_jax.errors import UserError
from sp_jax.features import map_rows, normalize

# Largest part of a bank on the device: elements (1 GiB of float32), and rows, so that
# similarities of 256 queries fit below.
_BLOCK = 2**28
_ROWS = 2**18
# Largest block of similarities, in elements (256 MiB of float32).
_BUDGET = 2**26

# Tags of q queries and of n rows of a bank -> bool [q, n].
Allowed = Callable[[Any, Any], jax.Array]
Tagged = tuple[Any, Any]  # Rows and their tags.


def nearest(
    queries: np.ndarray,
    bank: np.ndarray,
    k: int,
    *,
    allowed: Allowed | None = None,
    tags: tuple[Any, Any] = ((), ()),
) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of a bank that are most similar to each query.

    The device holds one block of the bank (at most 1 GiB), a block of similarities (at
    most 256 MiB, and on a GPU as much again to sort them) and the k best so far of a block
    of queries, whatever the sizes. Each block of the bank is sent there once.

    Args:
      queries: float [m, D], of any length: the cosine is taken.
      bank: float [n, D], likewise.
      k: number of neighbours, at most n.
      allowed: a function of this module's level or another lasting one, for it is
        compiled: which rows of the bank a query may find, from their tags.
      tags: of the queries, arrays with leading axis m, and of the bank, with n.

    Returns:
      Row numbers int32 [m, k] and cosines float32 [m, k], the most similar first; of equal
      ones the lower row first. Where a query may find too few, row -1 and cosine -inf.

    Raises:
      ValueError: k is not in [1, n].

    Example:
      >>> bank = np.array([[1.0, 0], [0, 1], [1, 0.1]])
      >>> nearest(np.array([[2.0, 0]]), bank, 2)[0].tolist()
      [[0, 2]]
    """
    count = len(bank)
    if not 1 <= k <= count:
        raise ValueError(f"k={k} is not from 1 to {count}, the number of rows.")
    found = np.full((len(queries), k), -1, np.int32)
    best = np.full((len(queries), k), -np.inf, np.float32)
    height = block_height(bank.shape[1])
    for start in progress.track(range(0, count, height), "parts of the bank"):
        part = slice(start, start + height)
        block = normalize(bank[part]), _take(tags[1], part)
        found, best = _search((queries, tags[0]), block, start, found, best, allowed)
    return found, best


def block_height(width: int) -> int:
    """Rows of a bank of this width that the device holds at a time."""
    return max(1, min(_ROWS, _BLOCK // width))


def _take(tags: Any, at: Any) -> Any:
    return jax.tree.map(lambda x: x[at], tags)


def _search(
    queries: Tagged,
    block: Tagged,
    start: int,
    found: np.ndarray,
    best: np.ndarray,
    allowed: Allowed | None,
) -> tuple[np.ndarray, np.ndarray]:
    """The best of those found before and of one more block, for all queries."""
    # A function, so that the block leaves the device before the next one comes.
    block = jax.device_put(block)

    def merge(rows: np.ndarray) -> tuple[jax.Array, jax.Array]:
        query = normalize(queries[0][rows]), _take(queries[1], rows)
        return _merge(query, block, np.int32(start), found[rows], best[rows], allowed)

    height = min(1024, max(1, _BUDGET // len(block[0])))
    return map_rows(merge, len(best), height, "nearest neighbours")


@functools.partial(jax.jit, static_argnames="allowed")
def _merge(
    queries: Tagged,
    block: Tagged,
    start: jax.Array,
    found: jax.Array,
    best: jax.Array,
    allowed: Allowed | None,
) -> tuple[jax.Array, jax.Array]:
    """The same for a block of queries [q, D]; start is the block's first row."""
    (query, tag), (bank, bank_tag) = queries, block
    k = found.shape[1]
    # Full precision: with TF32's error of 1e-3 votes would be off by some per cent, and
    # near ties would change places.
    cosine = jnp.dot(query, bank.T, precision=jax.lax.Precision.HIGHEST)
    if allowed is not None:
        cosine = jnp.where(allowed(tag, bank_tag), cosine, -jnp.inf)
    # No slice of what top_k returns: with one XLA:CPU sorts whole rows, 15-50 x slower.
    new, rows = jax.lax.top_k(cosine, min(k, len(bank)))
    # top_k keeps the order of equals, and earlier blocks have the lower rows.
    best, place = jax.lax.top_k(jnp.concatenate([best, new], axis=1), k)
    rows = jnp.concatenate([found, start + rows], axis=1)
    return jnp.take_along_axis(rows, place, axis=1), best


def nearest_others(
    features: np.ndarray, k: int, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k most similar other rows of each row of features [N, D], as `nearest` gives them.

    With groups, int [N], only rows of the same group are neighbours.

    Raises:
      ValueError: k is not in [1, N - 1].

    Example:
      >>> rows, cosines = nearest_others(np.array([[1.0, 0], [0, 1], [1, 0.1]]), 1)
      >>> rows[:, 0].tolist()
      [2, 2, 0]
    """
    count = len(features)
    if not 1 <= k < count:
        raise ValueError(
            f"k={k} is not from 1 to {count - 1}, the number of other rows."
        )
    if groups is None:
        groups = np.zeros(count)
    groups = np.unique(groups, return_inverse=True)[1].astype(np.int32)
    tag = groups, np.arange(count, dtype=np.int32)
    return nearest(features, features, k, allowed=is_peer, tags=(tag, tag))


def is_peer(query: Any, other: Any) -> jax.Array:
    """Tags (group, row): which other rows are of the same group, as `nearest` asks it."""
    (group, row), (groups, rows) = query, other
    return (group[:, None] == groups) & (row[:, None] != rows)


def fit_k(
    given: tuple[int, ...], default: tuple[int, ...], count: int, what: str
) -> tuple[tuple[int, ...], str]:
    """The values of k to use for `count` images, without repeats.

    Default values that are too large are left out; a text that says so is returned, too, or "".

    Raises:
      UserError: a value that is not the default is below 1 or above count.

    Example:
      >>> fit_k((10, 20, 100), (10, 20, 100), 60, "training images")
      ((10, 20), ' (100 is more than the 60 training images)')
    """
    fitting = tuple(k for k in dict.fromkeys(given) if 1 <= k <= count)
    wrong = [k for k in given if k not in fitting]
    if wrong and (given != default or not fitting):
        raise UserError(
            f"k={wrong[0]} neighbours of {count:,} {what}: "
            "give k, between 1 and their number."
        )
    if not wrong:
        return fitting, ""
    verb = "is" if len(wrong) == 1 else "are"
    left_out = ", ".join(map(str, wrong))
    return fitting, f" ({left_out} {verb} more than the {count:,} {what})"
