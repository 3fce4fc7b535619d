"""Differences between two groups of runs, judged by their seeds."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """The mean over seeds, with its confidence interval.

    Attributes:
      mean: NaN without seeds.
      low: end of its 95 % confidence interval (Student's t); NaN for one seed.
      high: the other end.
      seeds: number of seeds.
    """

    mean: float
    low: float
    high: float
    seeds: int


def interval(values: Sequence[float]) -> Interval:
    """The mean over seeds, with its 95 % confidence interval."""
    mean, count = float(np.mean(values)) if len(values) else np.nan, len(values)
    if count < 2:
        return Interval(mean, np.nan, np.nan, count)
    error = float(np.std(values, ddof=1)) / count**0.5
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * error
    return Interval(mean, mean - half, mean + half, count)


def paired(one: Mapping[int, float], other: Mapping[int, float]) -> Interval:
    """The difference of two groups, seed by seed, over the seeds that both have."""
    return interval([one[seed] - other[seed] for seed in sorted(set(one) & set(other))])


def judge(difference: Interval, better: str) -> str:
    """The verdict on a difference, in a word.

    Args:
      difference: of something minus something else.
      better: "higher", "lower" or "neither", as an evaluator declares it.

    Returns:
      "better" or "worse" ("higher" or "lower", where neither is better) if the whole interval
      is on one side of 0; else "undecided", "one seed" or "no seed in common".
    """
    if difference.seeds < 2:
        return "one seed" if difference.seeds else "no seed in common"
    if not (
        difference.low > 0 or difference.high < 0
    ):  # also if a number is not finite
        return "undecided"
    higher = difference.mean > 0
    if better == "neither":
        return "higher" if higher else "lower"
    return "better" if higher == (better == "higher") else "worse"


def by_chance(count: int) -> str:
    """A sentence on how many differences would be called different by chance alone."""
    return (
        f"{count} differences are judged, each by its own 95 % interval: even if none were "
        f"real, about {(1 - CONFIDENCE) * count:.2g} of them would be called different."
    )


def mean_text(values: Sequence[float], digits: int = 3) -> str:
    """Mean ± sample standard deviation; a single value alone; "" for none."""
    if not len(values):
        return ""
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def difference_text(difference: Interval, digits: int = 3) -> str:
    """A difference with its interval; "" if no seed is shared."""
    if not difference.seeds:
        return ""
    text = f"{difference.mean:+.{digits}f}"
    if difference.seeds > 1:
        text += f" [{difference.low:+.{digits}f}, {difference.high:+.{digits}f}]"
    return text
