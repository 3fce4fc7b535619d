"""Retrieval on features with a known answer."""

import numpy as np
import pytest

from eval import retrieval
from eval.features import Extractor
from input_pipeline.errors import UserError

OPTIONS = dict(dataset="tiny", splits=("one", "two"))


def test_known_answer_over_two_splits(make_store, provide, pixels):
    e = np.eye(12)
    provide(
        # Artist 0 draws things 0, 1 and 2 apart.
        make_store([9 * e[0], 5 * e[1], 3 * e[2]], [0, 1, 2], "one", artist=[0] * 3),
        # Artist 1's thing 1 looks more like artist 0's thing 0. Artist 0 has no thing 3
        # and artist 1 no thing 2: both stay out. Row 0 is unlabelled.
        make_store(
            [e[1], 2 * e[0], 8 * e[0] + 4 * e[1], 9 * e[1]],
            [-1, 0, 1, 3],
            "two",
            artist=[1] * 4,
        ),
    )
    # From 0 to 1: both right. From 1 to 0: thing 0 right, thing 1 wrong.
    evaluate = retrieval.create(**OPTIONS)
    assert evaluate(Extractor(pixels), 0) == {"top1": 0.75, "chance": 0.5}
    assert retrieval.describe(**OPTIONS) == (
        "retrieval top-1 by cosine, tiny one+two: the label of an image among 2 of "
        "another artist, mean over 2 ordered pairs of artists"
    )


def test_features_that_say_nothing_are_at_chance():
    gallery = np.arange(30).reshape(3, 10)
    assert retrieval.top1(np.ones((30, 4)), gallery) == pytest.approx(0.1)
    distinct = np.tile(np.eye(10), (3, 1))
    assert retrieval.top1(distinct, gallery) == 1


def test_options_that_do_not_fit(make_store, provide):
    e = np.eye(12)
    provide(
        make_store(e[:2], [0, 1], "one", artist=[0, 0]),
        make_store(e[2:4], [2, 1], "two", artist=[1, 1]),
    )
    with pytest.raises(UserError, match="found 2 and 1"):
        retrieval.create(**OPTIONS)
    with pytest.raises(UserError, match="found 1 and 2"):
        retrieval.create(dataset="tiny", splits=["one"])
    with pytest.raises(UserError, match="no target 'style'"):
        retrieval.create(**OPTIONS, across="style")
    with pytest.raises(UserError, match="names one twice"):
        retrieval.create(dataset="tiny", splits=("one", "one"))


@pytest.mark.parametrize("across", [None, "artist"])
def test_nearest_leaves_out_itself_or_its_artist(make_store, across):
    rng = np.random.default_rng(0)
    features = rng.standard_normal((40, 6)).astype(np.float32)
    artist = rng.integers(0, 4, 40)
    store = make_store(np.zeros((40, 12)), [0] * 40, artist=artist)
    queries = np.array([3, 17, 39])
    found = retrieval.nearest(features, store, queries, 5, across=across)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    for query, rows in zip(queries, found, strict=True):
        order = np.argsort(-(unit @ unit[query]))
        if across is None:
            order = order[order != query]
        else:
            order = order[artist[order] != artist[query]]
        np.testing.assert_array_equal(rows, order[:5])


def test_nearest_asks_for_no_more_than_there_are(make_store):
    store = make_store(np.eye(12), [0] * 12, artist=[0] * 8 + [1] * 4)
    features = np.eye(12, dtype=np.float32)
    # Image 0 has 4 drawings by another artist, image 8 has 8.
    retrieval.nearest(features, store, [8], 8, across="artist")
    with pytest.raises(UserError, match="ask for 1 to 4"):
        retrieval.nearest(features, store, [8, 0], 5, across="artist")
    with pytest.raises(UserError, match="ask for 1 to 11"):
        retrieval.nearest(features, store, [0], 12)
