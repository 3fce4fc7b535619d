import dataclasses

import numpy as np
import pytest

from input_pipeline.pairs import summary
from input_pipeline.pairs.table import PairTable
from sp_jax.errors import UserError


def test_pairs_of_two_classes_are_marked(make_store):
    # Of 4 classes, and an image without a label.
    store = make_store([0, 0, 1, 2, -1, 3], size=24)
    first, second = np.array([0, 0, 1, 3]), np.array([1, 2, 4, 5])
    table = PairTable.of(store, first, second, "mined")
    across = summary.two_classes(table, store)
    assert across.tolist() == [False, True, False, True]
    sheet = np.asarray(summary.contact_sheet(table, store)).astype(int)
    red = (sheet == (255, 0, 0)).all(axis=-1)
    # A line of four pairs, each of two images of 96 pixels and a gap of 10.
    found = [red[:, 5 + 202 * i : 200 + 202 * i].sum() for i in range(4)]
    assert [n > 500 for n in found] == across.tolist()
    # The images are all of what they were.
    size = summary.contact_sheet(table, store).size
    assert size == (4 * 202 + 10, 23 + 10 + 23 + 96 + 10)


def test_names_of_several_lines(make_store):
    store = dataclasses.replace(make_store([0, 0]), class_names=("a\nb",))
    table = PairTable.of(store, np.array([0]), np.array([1]), "mined")
    assert summary.contact_sheet(table, store).width > 400


def test_tables_that_would_replace_something(tmp_path):
    (tmp_path / "config.json").touch()
    with pytest.raises(UserError, match="record of the run"):
        summary.csv_path(f"{tmp_path}/pairs.csv")
    assert summary.csv_path(f"{tmp_path}/mined.csv").parent == tmp_path
    with pytest.raises(OSError):
        summary.csv_path("/proc/mined.csv")


def test_the_sheet_of_one_pair_has_room_for_its_caption(make_store):
    table = PairTable.of(make_store([0, 1]), np.array([0]), np.array([1]), "mined")
    sheet = summary.contact_sheet(table, make_store([0, 1]))
    assert sheet.width > 400
