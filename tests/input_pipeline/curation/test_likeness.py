"""The similarity of images."""

import numpy as np

from input_pipeline.curation.likeness import Likeness, load_features, pair_cosines
from input_pipeline.mining.features import describe


def test_the_nearest_that_are_allowed(make_store):
    """By features of an encoder, and by shapes and colours of the class."""
    store = make_store([0] * 6 + [1] * 6, size=16)
    by_hand = describe(store, np.arange(12))
    features = np.random.default_rng(0).normal(size=(12, 4))
    allowed = np.arange(12) % 2 == 0
    allowed[6:] = False
    for given, used in ((None, by_hand), (features, features)):
        unit = used / np.linalg.norm(used, axis=1, keepdims=True)
        wanted = sorted((0, 2, 4), key=lambda row: -unit[row] @ unit[1])
        likeness = Likeness(store, store.labels, given)
        assert likeness.nearest(1, allowed, 9).tolist() == wanted
        assert likeness.nearest(1, allowed, 2).tolist() == wanted[:2]
    rows = np.arange(12)
    cosines = (unit * unit[::-1]).sum(1)
    assert np.allclose(pair_cosines(features, rows, rows[::-1]), cosines)


def test_features_that_take_long_are_kept(make_store, tmp_path):
    store = make_store([-1] * 4, size=16)
    made = load_features(store, None, None, tmp_path)
    (path,) = tmp_path.glob(".features-*.npy")
    np.save(path, np.ones((4, 2), np.float32))
    assert made.shape == (4, 2020)
    assert load_features(store, None, None, tmp_path).shape == (4, 2)
    other = make_store([-1] * 5, size=16)  # Other images, other features.
    assert load_features(other, None, None, tmp_path).shape == (5, 2020)
