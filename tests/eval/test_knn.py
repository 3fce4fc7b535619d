"""kNN against scikit-learn and against the formula in float64."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from eval import knn
from sp_jax.errors import UserError
from sp_jax.features import Extractor

SPLITS = dict(dataset="tiny", train_split="train", test_split="test")


def overlapping(count, seed, classes=5, width=8):
    """Features of classes that overlap, so that votes are mixed."""
    labels = np.random.default_rng(seed).integers(0, classes, count)
    centres = np.random.default_rng(99).standard_normal((classes, width))
    noise = np.random.default_rng(seed + 50).standard_normal((count, width))
    length = np.random.default_rng(seed + 60).uniform(0.1, 10, (count, 1))
    return ((centres[labels] + noise) * length).astype(np.float32), labels


def by_formula(train, labels, test, k, temperature, classes):
    """Wu et al. (2018), one query at a time, in float64."""
    predicted = []
    for query in test.astype(np.float64):
        norms = np.linalg.norm(train.astype(np.float64), axis=1)
        cosine = train @ query / norms / np.linalg.norm(query)
        votes = np.zeros(classes)
        for row in np.argsort(-cosine)[:k]:
            votes[labels[row]] += np.exp(cosine[row] / temperature)
        predicted.append(votes.argmax())
    return np.array(predicted)


def run(train, labels, test, k, temperature):
    return knn.predict(train, labels, test, k=k, temperature=temperature, num_classes=5)


def test_agrees_with_scikit_learn(monkeypatch):
    """All k in one pass, votes counted in blocks of 7 queries."""
    monkeypatch.setattr(knn, "_BUDGET", 7 * 5)
    (train, labels), (test, _) = overlapping(400, 0), overlapping(300, 1)
    found = run(train, labels, test, (20, 1, 150), 0.07)
    assert list(found) == [20, 1, 150]
    for k, predicted in found.items():
        peer = KNeighborsClassifier(
            k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
        ).fit(train, labels)
        np.testing.assert_array_equal(predicted, peer.predict(test))


# At 0.01 the nearest outweighs all others, at 100 all votes weigh nearly the same.
@pytest.mark.parametrize("temperature", [0.01, 0.07, 100.0])
def test_agrees_with_the_formula(temperature):
    (train, labels), (test, _) = overlapping(400, 2), overlapping(300, 3)
    expected = by_formula(train, labels, test, 30, temperature, 5)
    found = run(train, labels, test, (30,), temperature)[30]
    np.testing.assert_array_equal(found, expected)


def test_temperature_matters():
    (train, labels), (test, _) = overlapping(400, 2), overlapping(300, 3)
    cold, warm = (run(train, labels, test, (30,), t)[30] for t in (0.01, 100.0))
    assert (cold != warm).any()
    # exp(1 / 0.0001) is no float64.
    freezing, nearest = (
        run(train, labels, test, (30,), 1e-4),
        run(train, labels, test, (1,), 1),
    )
    np.testing.assert_array_equal(freezing[30], nearest[1])


def test_evaluator_and_its_protocol(blobs, provide, pixels):
    train, test = blobs("train", 0), blobs("test", 1)
    provide(train, test)
    evaluate = knn.create(**SPLITS, k=(7, 30))
    expected = [
        by_formula(pixels(train.images), train.labels, pixels(test.images), k, 0.07, 3)
        for k in (7, 30)
    ]
    seven, thirty = (np.mean(classes == test.labels) for classes in expected)
    assert 0.4 < seven < 1 and seven != thirty
    assert evaluate(Extractor(pixels), 0) == pytest.approx(
        {"accuracy": seven, "accuracy_k7": seven, "accuracy_k30": thirty}
    )
    assert knn.create(**SPLITS, k=(7, 30)).protocol == (
        "kNN k=7,30, accuracy is that of k=7, T=0.07 cosine, tiny label, "
        "fit train (60 images, 3 classes) -> test test (60)"
    )


def test_of_the_default_what_fits(blobs, provide, pixels):
    """k=20 comes first, as in runs from before there were several."""
    provide(blobs("train", 0), blobs("test", 1))
    found = knn.create(**SPLITS)(Extractor(pixels), 0)
    assert list(found) == ["accuracy", "accuracy_k10", "accuracy_k20"]
    assert found["accuracy"] == found["accuracy_k20"] != found["accuracy_k10"]
    one = knn.create(**SPLITS, k=20)(Extractor(pixels), 0)
    assert one == {key: found["accuracy"] for key in ("accuracy", "accuracy_k20")}
    headline = [number.name for number in knn.create(**SPLITS).headline]
    assert headline == ["accuracy_k20", "accuracy_k10"]
    assert knn.create(**SPLITS).protocol.startswith(
        "kNN k=10,20 (100, 200 are more than the 60 training images), accuracy is that "
        "of k=20, T=0.07 cosine"
    )
    assert knn.create(**SPLITS, k=20).protocol.startswith(
        "kNN k=20 T=0.07 cosine, tiny"
    )


def test_options_that_do_not_fit(blobs, make_store, provide):
    provide(blobs("train", 0), blobs("test", 1))
    for k in (61, (20, 61)):
        with pytest.raises(UserError, match="k=61 neighbours of 60 training images"):
            knn.create(**SPLITS, k=k)
    with pytest.raises(UserError, match="temperature must be .* above 0"):
        knn.create(**SPLITS, temperature=0.0)
    few = make_store(np.eye(12)[:9], np.arange(9) % 3, "train")
    provide(few, blobs("test", 1))
    with pytest.raises(UserError, match="k=10 neighbours of 9 training images"):
        knn.create(**SPLITS)
