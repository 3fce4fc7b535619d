"""What is alike: scaled features, similarities without hubs, pairs of several encoders."""

import numpy as np
import pytest

from input_pipeline.mining import alike
from sp_jax.errors import UserError

RNG = np.random.default_rng(0)
CORRELATED = (RNG.normal(size=(200, 5)) @ RNG.normal(size=(5, 5)) + 3).astype("float32")


def test_whitened_features_have_no_covariance():
    white = alike.rescale(CORRELATED, "whiten")
    np.testing.assert_allclose(np.cov(white.T), np.eye(5), atol=1e-4)
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-4)
    # A direction without variance, and more numbers than images, give no infinite ones.
    flat = np.concatenate([CORRELATED, CORRELATED[:, :1]], axis=1)
    assert alike.rescale(flat, "whiten").shape == (200, 5)
    wide = alike.rescale(RNG.normal(size=(4, 9)).astype("float32"), "whiten")
    assert wide.shape == (4, 3) and np.isfinite(wide).all()


def test_standard_features_have_one_variance():
    standard = alike.rescale(CORRELATED, "standard")
    np.testing.assert_allclose(standard.std(0), 1, rtol=1e-5)
    assert alike.rescale(CORRELATED, "none") is CORRELATED
    with pytest.raises(UserError, match="use one of none, standard, whiten"):
        alike.rescale(CORRELATED, "zca")


def test_local_scaling_by_the_formula():
    """2 cos - r - r over all pairs, by brute force; a group of two has one neighbour."""
    features = RNG.normal(size=(12, 3))
    groups = np.array([0] * 10 + [1] * 2)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosine = unit @ unit.T
    cosine[groups[:, None] != groups] = -np.inf
    np.fill_diagonal(cosine, -np.inf)
    near = -np.sort(-cosine, axis=1)[:, :2]
    radius = np.where(np.isfinite(near), near, 0).mean(1)
    scaled = 2 * cosine - radius[:, None] - radius
    want = np.argsort(-scaled, axis=1, kind="stable")[:, :2]
    rows, found = alike.find_alike(features, 2, groups, local_scaling=True)
    known = np.isfinite(found)
    assert known.sum() == 2 * 10 + 2
    np.testing.assert_array_equal(rows[known], want[known])
    best = np.take_along_axis(scaled, want, 1)
    np.testing.assert_allclose(found[known], best[known], atol=1e-5)
