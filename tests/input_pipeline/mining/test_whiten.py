"""Whitened features vary alike in every direction."""

import numpy as np

from input_pipeline.mining.whiten import whitening

RNG = np.random.default_rng(0)
CORRELATED = (RNG.normal(size=(200, 5)) @ RNG.normal(size=(5, 5)) + 3).astype("float32")


def test_no_covariance_is_left():
    mean, matrix = whitening(CORRELATED)
    white = (CORRELATED - mean) @ matrix
    np.testing.assert_allclose(np.cov(white.T), np.eye(5), atol=1e-3)
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-3)


def test_directions_without_variance_are_left_out():
    flat = np.concatenate([CORRELATED, CORRELATED[:, :1]], axis=1)
    assert whitening(flat)[1].shape == (6, 5)
    wide = RNG.normal(size=(4, 9)).astype("float32")
    mean, matrix = whitening(wide)
    assert matrix.shape == (9, 3) and np.isfinite((wide - mean) @ matrix).all()
    assert whitening(CORRELATED, 2)[1].shape == (5, 2)
