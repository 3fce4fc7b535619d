"""Intervals against scipy, and verdicts on both sides of 0."""

import numpy as np
import pytest
from scipy import stats

from eval.compare.statistics import (
    by_chance,
    difference_text,
    interval,
    judge,
    mean_text,
    paired,
)


def test_an_interval_is_that_of_the_t_test():
    rng = np.random.default_rng(0)
    for count in (2, 3, 10):
        values = rng.normal(2.0, 3.0, count)
        known = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        found = interval(values)
        assert found[:3] == pytest.approx((values.mean(), known.low, known.high))
        assert found.seeds == count


def test_a_difference_is_of_shared_seeds_alone():
    one, other = {0: 0.5, 1: 0.75, 7: 9.0}, {1: 0.5, 0: 0.375, 8: -9.0}
    found = paired(one, other)
    assert (found.mean, found.seeds) == (0.1875, 2)
    assert paired(one, {3: 1.0}).seeds == 0


def test_a_word_for_each_case():
    cases = {
        (2.0, 2.1, 2.2): ("better", "worse", "higher"),
        (-2.0, -2.1, -2.2): ("worse", "better", "lower"),
        (-1.0, 1.0, 0.5): ("undecided",) * 3,
        (1.0,): ("one seed",) * 3,
        (): ("no seed in common",) * 3,
    }
    for values, words in cases.items():
        found = [judge(interval(values), x) for x in ("higher", "lower", "neither")]
        assert tuple(found) == words


def test_five_of_a_hundred_differences_that_are_none_are_called_different():
    rng = np.random.default_rng(0)
    seeds = rng.normal(size=(4000, 3))
    words = [judge(interval(row), "higher") for row in seeds]
    assert np.mean([word != "undecided" for word in words]) == pytest.approx(
        0.05, abs=0.01
    )
    assert "about 5 of them" in by_chance(100)


def test_texts():
    assert mean_text([0.5]) == "0.500" and mean_text([]) == ""
    assert mean_text([1.0, 2.0], 1) == "1.5 ± 0.7"
    assert difference_text(interval([1.0])) == "+1.000"
    assert difference_text(interval([1.0, 1.0])) == "+1.000 [+1.000, +1.000]"
    assert difference_text(interval([])) == ""


@pytest.mark.parametrize("better", ["higher", "lower", "neither"])
def test_a_number_that_is_not_finite_decides_nothing(better):
    difference = paired({0: np.nan, 1: 0.2}, {0: 0.1, 1: 0.1})
    assert judge(difference, better) == "undecided"
