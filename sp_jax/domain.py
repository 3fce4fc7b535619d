"""The range of values that an option may have."""

import math
from typing import Any, NamedTuple


class Domain(NamedTuple):
    """The finite numbers from `low` to `high`, without `low` if `above`, `high` if `below`."""

    low: float
    high: float
    whole: bool = False
    above: bool = False
    below: bool = False

    def __contains__(self, value: Any) -> bool:
        """Whether a value, a number of any kind, lies in the domain."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if not math.isfinite(value) or (self.whole and not isinstance(value, int)):
            return False
        low = value > self.low if self.above else value >= self.low
        return low and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        """The domain in words, as in "give a number above 0"."""
        kind = "a whole number" if self.whole else "a finite number"
        low, high = (f"{end:g}" if end < 1e5 else f"{end:,.0f}" for end in self[:2])
        if self.low == -math.inf:
            return kind
        if self.high == math.inf or (self.whole and self.high >= _LARGEST):
            return f"{kind} above {low}" if self.above else f"{kind} of at least {low}"
        first = f"above {low} and" if self.above else f"from {low}"
        last = f"below {high}" if self.below else f"{'up ' * self.above}to {high}"
        last = f"to {last}" if self.below and not self.above else last
        return f"{kind} {first} {last}"


_LARGEST = 2**31 - 1  # of the numbers that a device counts with


def whole(low: int, high: float = _LARGEST) -> Domain:
    """The whole numbers from `low` to `high`."""
    return Domain(low, high, whole=True)


FINITE = Domain(-math.inf, math.inf)
POSITIVE = Domain(0, math.inf, above=True)
NOT_NEGATIVE = Domain(0, math.inf)
SHARE = Domain(0, 1)
POSITIVE_SHARE = Domain(0, 1, above=True)
BELOW_ONE = Domain(0, 1, below=True)
COUNT, COUNT_OR_NONE = whole(1), whole(0)
PIXELS = whole(1, 4096)
SEED = whole(0, 2**32 - 1)
