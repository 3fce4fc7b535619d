"""The pairs of a step: a function of (seed, step), the same on the host and the device.

The random bits come from Threefry, a counter-based generator of a few additions, rotations and
exclusive ors. So the same code runs in NumPy, which feeds a stream, and in jax.numpy, which
draws the same batches on an accelerator.
"""

import dataclasses
import functools
import itertools
import math
from types import ModuleType
from typing import Any

import numpy as np

from input_pipeline.pairs.table import PairTable
from sp_jax.config import PAIRINGS
from sp_jax.errors import UserError

_ORDER, _CHOICE, SWAP, CROP = range(4)  # Keep the uses of a seed apart.
_CHOICE_BITS = 24


@dataclasses.dataclass(frozen=True, eq=False)
class Sampler:
    """Draws the batch of a step without its pixels.

    The order of epoch e is a permutation drawn from (seed, e), cut into batches; an incomplete
    last batch is dropped. The choices of mixed pairs are drawn from (seed, step). A value out
    of range raises UserError.
    """

    table: PairTable  # P pairs
    batch_size: int  # pairs B of the global batch, over all processes
    seed: int  # at least 0 and below 2^32
    # One of `PAIRINGS`. "semantic": both images of each pair, V = 2. "augmented": the first
    # image only, V = 1. "both": each of the two images by itself, V = 1, so 2 P pairs. "mixed":
    # a choice for each pair of each step; where it is augmented, the second image is the first
    # again, V = 2.
    pairing: str = "semantic"
    semantic_fraction: float = 0.5  # probability that "mixed" keeps a pair semantic
    schedule: tuple[tuple[float, float], ...] = ()  # (epoch, fraction) from there on

    def __post_init__(self) -> None:
        """Check the values."""
        if self.batch_size < 1:
            raise UserError(f"batch_size must be at least 1, not {self.batch_size}.")
        if self.batch_size > len(self.table):
            raise UserError(
                f"batch_size {self.batch_size} exceeds the {len(self.table)} pairs of "
                "the table: choose a smaller batch_size, or more pairs (data.rounds, where "
                "they come from labels)."
            )
        if self.pairing not in PAIRINGS:
            raise UserError(
                f"pairing is {self.pairing!r}: use one of {', '.join(PAIRINGS)}."
            )
        if not 0.0 <= self.semantic_fraction <= 1.0:
            raise UserError(
                f"semantic_fraction must be between 0 and 1, not {self.semantic_fraction}."
            )
        given = self.semantic_fraction != Sampler.semantic_fraction
        if given and (self.pairing != "mixed" or self.schedule):
            raise UserError(
                f"semantic_fraction is {self.semantic_fraction}, but it is for pairing=mixed "
                "without a schedule: leave it out."
            )
        _check_schedule(self.schedule)
        if self.schedule and self.pairing != "mixed":
            raise UserError(
                f"semantic_schedule is for mixed pairs, but pairing is {self.pairing!r}: use "
                "pairing=mixed, or no schedule."
            )
        check_seed(self.seed)

    @property
    def steps_per_epoch(self) -> int:
        """P // B; twice that for "both", so that half the epochs make as many steps."""
        return self._turns * (len(self.table) // self.batch_size)

    @property
    def _turns(self) -> int:
        """How often an epoch shows a pair."""
        return 2 if self.pairing == "both" else 1

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """The global batch of any step >= 0.

        Returns:
          "index" int32 [B, V], rows of the store, and "label" int32 [B].
        """
        order = self._order_on_host(step // self.steps_per_epoch)
        return self.rows(self.table.columns, step, order, np)

    def order(self, epoch: Any, xp: ModuleType) -> Any:
        """The permutation of the pairs in an epoch, by numpy or jax.numpy: integers [P].

        With "both" [2 P]: below P the first image of a pair, from P on the second.
        """
        count = self._turns * len(self.table)
        bits = random_bits(self.seed, _ORDER, epoch, count, xp)
        return xp.argsort(bits, stable=True)

    def rows(self, columns: dict[str, Any], step: Any, order: Any, xp: ModuleType):
        """The `batch` of a step, given the order of its epoch and the columns of the table.

        On a device, where `xp` is jax.numpy, the step may be traced; columns are copies.
        """
        start = step % self.steps_per_epoch * self.batch_size
        order = order[start + xp.arange(self.batch_size)]
        pairs = order % len(self.table)
        first, second = columns["first"][pairs], columns["second"][pairs]
        if self.pairing == "augmented":
            index = first[:, None]
        elif self.pairing == "both":
            index = xp.where(order < len(self.table), first, second)[:, None]
        else:
            if self.pairing == "mixed":
                bits = random_bits(self.seed, _CHOICE, step, self.batch_size, xp)
                keep = (bits >> (32 - _CHOICE_BITS)) < self._most(step, xp)
                second = xp.where(keep, second, first)
            index = xp.stack([first, second], axis=1)
        return {"index": index, "label": columns["label"][pairs]}

    def _most(self, step: Any, xp: ModuleType) -> Any:
        """The upper limit, in a step, of the bits of a pair that stays semantic."""
        points = self.schedule or ((0, self.semantic_fraction),)
        begins = [round(epoch * self.steps_per_epoch) for epoch, _ in points]
        most = [round(fraction * 2**_CHOICE_BITS) for _, fraction in points]
        # Whole numbers only, so that host and device choose in the same way.
        return xp.asarray(most)[(xp.asarray(begins) <= step).sum() - 1]

    # Two epochs: prefetching runs ahead over the border. A worker keeps its own.
    @functools.lru_cache(maxsize=2)  # noqa: B019 one sampler a run
    def _order_on_host(self, epoch: int) -> np.ndarray:
        return self.order(epoch, np)


def _check_schedule(schedule: Any) -> None:
    """Raise UserError unless it is (epoch, fraction), … starting at epoch 0."""
    try:
        points = [(float(epoch), float(fraction)) for epoch, fraction in schedule]
    except (TypeError, ValueError):
        points = [(1.0, 0.0)]
    epochs = [epoch for epoch, _ in points]
    sound = all(0 <= fraction <= 1 for _, fraction in points)
    rising = all(a < b for a, b in itertools.pairwise(epochs)) and all(
        map(math.isfinite, epochs)
    )
    if points and not (sound and rising and epochs[0] == 0):
        raise UserError(
            f"semantic_schedule is {schedule!r}: give (epoch, fraction) pairs with epochs "
            "that rise from 0 and fractions between 0 and 1, as ((0, 0.0), (3, 1.0))."
        )


def check_seed(seed: int) -> None:
    """Raise UserError unless `random_bits` can take the seed."""
    if not 0 <= seed < 2**32:
        raise UserError(f"seed must be at least 0 and below 2^32, but is {seed}.")


def random_bits(seed: int, use: int, number: Any, count: int, xp: ModuleType) -> Any:
    """uint32 [count] from (seed, use, number), by numpy or jax.numpy.

    `use` keeps different uses of one seed, below 2^32, apart. The number, of an epoch or step,
    is below 2^31; on a device it may be traced.
    """
    words = functools.partial(xp.asarray, dtype=xp.uint32)
    key = threefry(words([0]), words([seed]), words([use]), words(number).reshape(1))
    return threefry(*key, words([0]), xp.arange(count, dtype=xp.uint32))[0]


def threefry(key0: Any, key1: Any, x0: Any, x1: Any) -> tuple[Any, Any]:
    """Threefry-2x32 with 20 rounds: two words of random bits from two of key, two of counter.

    Arrays are uint32 with at least one axis, of NumPy or jax; sums wrap around.

    Source: Salmon et al. 2011, https://doi.org/10.1145/2063384.2063405
    """
    keys = (key0, key1, key0 ^ key1 ^ 0x1BD11BDA)
    x0, x1 = x0 + keys[0], x1 + keys[1]
    for group in range(5):
        for turn in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            x0 = x0 + x1
            x1 = ((x1 << turn) | (x1 >> (32 - turn))) ^ x0
        x0 = x0 + keys[(group + 1) % 3]
        x1 = x1 + keys[(group + 2) % 3] + (group + 1)
    return x0, x1
