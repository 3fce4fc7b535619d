"""The order in which pairs are shown, and the list of classes."""

import numpy as np
import pytest

from input_pipeline import pairs
from input_pipeline.curation.decisions import Curation
from input_pipeline.curation.order import Order


@pytest.fixture
def make_order(make_store, tmp_path):
    """An order of pairs with these labels, a pair for each two images, and its curation."""

    def make(labels, **options):
        store = make_store(np.repeat(labels, 2))
        rows = np.arange(0, len(store), 2)
        table = pairs.PairTable.of(store, rows, rows + 1, "by hand")
        curation = Curation(table, store, tmp_path / "log")
        return Order(curation, **options), curation

    return make


def test_sheets_are_of_one_class(make_order):
    order, curation = make_order([1, 0, 1, 0, 1])
    assert order.pairs.tolist() == [0, 2, 4, 1, 3]  # As the table begins them.
    assert order.next(2) == [0, 2] and order.next(2, after=1) == [4]
    assert order.next(9, without=[0, 2, 4]) == [1, 3]
    curation.decide((2, "accept"), (1, "reject"))
    assert order.next(9) == [0, 4] and order.next(9, after=2) == [3]
    assert order.next(9, after=4) == [0, 4]  # From the start again.
    assert order.around(1, 9) == [2, 4] and order.around(9, 9) == [3]
    assert order.around(2, 2, back=True) == [2, 4]
    curation.decide((0, "accept"), (4, "accept"), (3, "accept"))
    assert order.next(9) == []


def test_the_best_come_first_until_there_are_enough(make_order):
    score = np.array([0.1, 0.5, 0.9, 0.7, 0.3])
    order, curation = make_order([0, 0, 0, 0, 1], score=score, wanted=2)
    assert order.next(9) == [2, 3]  # No more than are wanted.
    assert order.next(9, without=[2, 3]) == [4]
    curation.decide((2, "accept"), (3, "reject"))
    assert order.next(9) == [1]
    curation.decide((1, "accept"))
    assert order.next(9) == [4]
    assert order.counts(0)["of_class"]["accepted"] == 2
    assert order.asked([0, 1, 2]) == set() and order.asked([4]) == {4}
    curation.decide((4, "reject"))
    assert order.end().endswith("undecided: 1. Export.")
    short = order.classes(0, "", True)
    assert [c["name"] for c in short["classes"]] == ["class1"] and short["lacking"] == 1


def test_only_some_pairs_are_asked_for(make_order):
    order, curation = make_order([0, 0, 0, 0], only=[1, 3])
    assert order.next(9) == [1, 3] and order.around(0, 9) == [0, 1, 2, 3]
    assert order.asked([0, 1, 2, 3]) == {1, 3} and order.last() == 3
    curation.decide((1, "accept"), (3, "accept"))
    assert order.end() == "2 settled, 2 undecided by all: export."


def test_of_many_classes_those_near_are_listed(make_order):
    order, _ = make_order(np.arange(500))
    for near, before, behind in ((0, 0, 300), (250, 150, 150), (499, 399, 0)):
        found = order.classes(near, "", False)
        assert (found["before"], found["behind"]) == (before, behind)
        assert near in [c["class"] for c in found["classes"]]
    found = order.classes(250, "SS49", False)
    assert [c["class"] for c in found["classes"]] == [49, *range(490, 500)]
    assert order.class_start(7) == 7


def test_an_image_without_a_partner_left_is_not_asked_for(make_store, tmp_path):
    """Of three images, two of which nothing fits; then of three, two of which are a pair."""
    store, rows = make_store([0] * 3 + [1] * 3), np.arange(6)
    table = pairs.PairTable.of(store, rows, rows, "by a person")
    curation = Curation(table, store, tmp_path / "log", making=True)
    order = Order(curation)
    curation.decide((0, "reject"))
    assert order.next(9) == [1, 2]
    curation.decide((1, "reject"), (3, "swap", 5), (3, "accept"))
    assert order.next(9) == []
