"""Few labels: the draw, and the closed form against repeated fits of scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier

from eval import few_labels, probes
from sp_jax.errors import UserError
from sp_jax.features import Extractor

SPLITS = dict(dataset="tiny", train_split="train", test_split="test")
DECAYS = (1e-3, 0.1, 10.0)


def classes(count, width, seed, spread=1.5):
    """4 classes in correlated features of very different scales."""
    mix = np.random.default_rng(7).standard_normal((width, width)) / 5 + np.eye(width)
    scale = np.random.default_rng(8).uniform(0.01, 100, width)
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    x = 1.2 * np.eye(width)[labels] + spread * rng.standard_normal((count, width))
    return ((x @ mix + 3) * scale).astype(np.float32), labels


def test_draws_are_balanced_nested_and_of_the_seed():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [3, 20, 50]))
    drawn = {n: few_labels.draw(labels, n, seed=4) for n in (1, 5, 30)}
    for number, rows in drawn.items():
        assert len(set(rows)) == len(rows)
        expected = np.minimum([3, 20, 50], number)
        np.testing.assert_array_equal(np.bincount(labels[rows]), expected)
    assert set(drawn[1]) < set(drawn[5]) < set(drawn[30])
    np.testing.assert_array_equal(few_labels.draw(labels, 5, seed=4), drawn[5])
    assert set(few_labels.draw(labels, 5, seed=5)) != set(drawn[5])


# More features than images, and fewer: the two Gram matrices.
@pytest.mark.parametrize("width", [6, 60])
def test_agrees_with_scikit_learn_fitted_without_each_image(width):
    x, labels = classes(32, width, 0)
    test, _ = classes(200, width, 1)
    standard = (x - x.mean(0)) / x.std(0)
    right, errors = [], []
    for decay in DECAYS:
        left_out = []
        for row in range(32):
            others = np.delete(np.arange(32), row)
            peer = RidgeClassifier(alpha=32 * decay).fit(
                standard[others], labels[others]
            )
            left_out.append(peer.decision_function(standard[row : row + 1])[0])
        right.append(np.mean(np.argmax(left_out, axis=1) == labels))
        # scikit-learn's targets are -1 and 1.
        errors.append(np.mean((np.array(left_out) - 2 * np.eye(4)[labels] + 1) ** 2))
    best = min(range(3), key=lambda i: (-right[i], errors[i]))
    found, decay = few_labels.fit(x, labels, DECAYS, num_classes=4)
    assert decay == DECAYS[best]
    assert len(set(right)) > 1  # There was something to choose.
    peer = RidgeClassifier(alpha=32 * decay).fit(standard, labels)
    scores = peer.decision_function((test - x.mean(0)) / x.std(0))
    assert probes.score(found, test, scores.argmax(axis=1))[0] == 1


def test_one_image_a_class_is_chosen_for_by_squared_error():
    """Left out, it can never be right: then strong shrinkage is least wrong."""
    x, labels = classes(4, 30, 0, spread=0.1)
    found, decay = few_labels.fit(x, labels, DECAYS, num_classes=4)
    assert decay == 10
    assert probes.score(found, x, labels)[0] == 1
    constant, _ = few_labels.fit(np.ones_like(x), labels, DECAYS, num_classes=4)
    assert probes.score(constant, x, np.zeros(4))[0] == 1


def test_evaluator_and_its_protocol(blobs, provide, pixels, monkeypatch):
    provide(blobs("train", 0), blobs("test", 1))
    options = dict(**SPLITS, amounts=("10%", "1", "100%"), seeds=(0, 3))
    sizes, fit = [], few_labels.fit

    def spy(features, labels, *args, **kwargs):
        sizes.append(np.bincount(labels).tolist())
        return fit(features, labels, *args, **kwargs)

    monkeypatch.setattr(few_labels, "fit", spy)
    found = few_labels.create(**options)(Extractor(pixels), 0)
    assert sizes == [[2] * 3] * 2 + [[1] * 3] * 2 + [[20] * 3] * 2
    assert found["accuracy"] == found["accuracy_10pct"]
    assert 0.4 < found["accuracy_1_a_class"] < found["accuracy_100pct"] < 1
    assert found["std_100pct"] == 0 < found["std_1_a_class"]
    assert few_labels.create(**options).protocol == (
        "few labels, ridge classifier, 7 weight decays chosen by leaving one out, of the "
        "training images 10% = 6 (up to 2 a class), 1 = 3 (up to 1 a class), 100% = 60 "
        "(up to 20 a class), seeds 0,3, tiny label, fit train (60 images, 3 classes) -> "
        "test test (60)"
    )
    one = few_labels.create(**SPLITS, amounts=("1",), seeds=(3,))(Extractor(pixels), 0)
    assert list(one) == ["accuracy", "accuracy_1_a_class"]


def test_options_that_do_not_fit(blobs, provide):
    provide(blobs("train", 0), blobs("test", 1))
    for amount in ("0", "-3", "0%", "101%", "nan%", "5.5", "few", ""):
        with pytest.raises(
            UserError, match=f"amounts has '{amount}': give a percentage"
        ):
            few_labels.create(**SPLITS, amounts=(amount,))
    with pytest.raises(UserError, match="weight_decays must be .* above 0"):
        few_labels.create(**SPLITS, weight_decays=(0.0,))
    with pytest.raises(UserError, match="seeds must be different numbers"):
        few_labels.create(**SPLITS, seeds=(1, 1))
