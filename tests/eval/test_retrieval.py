"""Retrieval on features with a known answer."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from eval import ranking, retrieval
from sp_jax.errors import UserError
from sp_jax.features import Extractor

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
    # From 0 to 1: both right. From 1 to 0: thing 0 right, thing 1 second.
    evaluate = retrieval.create(**OPTIONS)
    assert evaluate(Extractor(pixels), 0) == {
        "top1": 0.75,
        "chance": 0.5,
        "recall_k1": 0.75,
        "map": (3 * 1 + 1 / 2) / 4,
    }
    assert retrieval.create(**OPTIONS).protocol == (
        "retrieval by cosine, recall@1 (5, 10 are more than the 2 images to find) and "
        "mAP, tiny one+two: the label of an image among 2 of another artist, mean over 2 "
        "ordered pairs of artists"
    )
    assert retrieval.create(**OPTIONS, k=(2,))(Extractor(pixels), 0)["recall_k2"] == 1


def test_features_that_say_nothing_are_at_chance():
    gallery = np.arange(30).reshape(3, 10)
    ranks = ranking.answer_ranks(np.ones((30, 4)), gallery)
    assert ranks.shape == (6, 10) and (ranks == np.arange(1, 11)).all()
    distinct = np.tile(np.eye(10), (3, 1))
    assert (ranking.answer_ranks(distinct, gallery) == 1).all()
    found, precision = ranking.leave_one_out(np.ones((30, 4)), np.arange(30) % 3, 1)
    assert found.mean() == pytest.approx(1 / 3, abs=0.05)
    np.testing.assert_allclose(precision, 9 / 29, rtol=1e-6)


def test_ranks_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    things = rng.standard_normal((40, 6))
    features = np.concatenate([things + rng.standard_normal((40, 6)) for _ in range(3)])
    ranks = ranking.answer_ranks(features, np.arange(120).reshape(3, 40))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    expected = average_precision_score(
        np.eye(40, dtype=int), unit[80:] @ unit[40:80].T, average=None
    )  # Of the last ordered pair, a column a thing: so the queries are the second ones.
    np.testing.assert_allclose(1 / ranks[3], expected, rtol=1e-6)
    assert 1 < np.mean(ranks) < 15


@pytest.mark.parametrize("tied", [False, True])
def test_leave_one_out_agrees_with_scikit_learn(tied, monkeypatch):
    """Classes of very different sizes, one of one image; cosines of -1, 0 and 1 if tied."""
    monkeypatch.setattr(ranking, "_BUDGET", 150 * 7)
    rng = np.random.default_rng(0)
    labels = rng.choice([2, 3, 5, 9], 150, p=[0.7, 0.2, 0.06, 0.04])
    labels[77] = 4
    features = rng.standard_normal((150, 6)) + 0.5 * np.eye(10)[labels][:, :6]
    if tied:
        features = np.eye(6)[labels % 6 - rng.integers(0, 2, 150)]
        features *= rng.choice([-1.0, 1.0], 150)[:, None]
    relevant, precision = ranking.leave_one_out(features, labels, 10)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    queries = np.delete(np.arange(150), 77)
    assert relevant.shape == (149, 10)
    for row, near, found in zip(queries, relevant, precision, strict=True):
        others = np.delete(np.arange(150), row)
        cosine, same = unit[others] @ unit[row], labels[others] == labels[row]
        assert found == pytest.approx(average_precision_score(same, cosine), rel=1e-5)
        order = np.argsort(-cosine, kind="stable")[:10]
        np.testing.assert_array_equal(near, same[order])


def test_integers_sort_as_their_numbers():
    numbers = np.float32([-np.inf, -1, -0.3, -1e-30, -0.0, 0, 1e-30, 0.3, 1, np.inf])
    found = np.asarray(ranking._as_integer(numbers)).astype(np.int64)
    assert found[4] == found[5] and (np.diff(np.delete(found, 4)) > 0).all()


def test_leave_one_out_as_an_evaluator(make_store, provide, pixels):
    e = np.eye(12)
    values = [9 * e[0], 8 * e[0] + e[1], 9 * e[1], 5 * e[1] + 3 * e[0], 7 * e[2], e[0]]
    provide(make_store(values, [0, 0, 1, 0, 2, -1], "one"))
    options = dict(dataset="tiny", splits=("one",), protocol="leave_one_out", k=(1, 2))
    # Queries 0 and 1 find each other; query 3 is nearest to 2, then to 1 and 0.
    found = retrieval.create(**options)(Extractor(pixels), 0)
    assert found == pytest.approx(
        {
            "top1": 2 / 3,
            "recall_k1": 2 / 3,
            "recall_k2": 1,
            "chance": 2 / 4,
            "map": (1 + 1 + (1 / 2 + 2 / 3) / 2) / 3,
        }
    )
    assert retrieval.create(**options).protocol == (
        "retrieval by cosine, recall@1,2 and mAP, tiny one: images of the label of an "
        "image among all 4 others, 3 queries"
    )


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
    with pytest.raises(UserError, match="choose across or leave_one_out"):
        retrieval.create(**OPTIONS, protocol="all")
    with pytest.raises(UserError, match="tiny one has no two images of one label"):
        retrieval.create(dataset="tiny", splits=("one",), protocol="leave_one_out")
    with pytest.raises(UserError, match="k=4 neighbours of 3 images to find"):
        retrieval.create(**OPTIONS, protocol="leave_one_out", k=(1, 4))


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
