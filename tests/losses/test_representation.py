"""The health of a representation against numpy float64, and at its extremes."""

import numpy as np
import pytest

from sp_jax import losses

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(2, 40, 7)).astype(np.float32)


def unit(x):
    x = x.astype(np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_against_numpy():
    u, v = unit(X), unit(Y)
    assert float(losses.feature_std(X)) == pytest.approx(u.std(0).mean(), rel=1e-5)
    aligned = np.mean(np.sum((u - v) ** 2, 1))
    assert float(losses.alignment(X, Y)) == pytest.approx(aligned, rel=1e-5)
    potentials = [
        np.exp(-2 * np.sum((u[i] - u[j]) ** 2))
        for i in range(40)
        for j in range(40)
        if i != j
    ]
    expected = np.log(np.mean(potentials))
    assert float(losses.uniformity(X)) == pytest.approx(expected, rel=1e-4)
    s = np.linalg.svd(X.astype(np.float64), compute_uv=False)
    p = s / s.sum()
    rank = np.exp(-np.sum(p * np.log(p)))
    assert float(losses.effective_rank(X)) == pytest.approx(rank, rel=1e-4)
    assert float(losses.effective_rank(X.T)) == pytest.approx(rank, rel=1e-4)


def test_collapse_and_its_opposite():
    collapsed = np.ones((16, 8), np.float32)
    assert float(losses.feature_std(collapsed)) == pytest.approx(0, abs=1e-6)
    assert float(losses.alignment(collapsed, -collapsed)) == pytest.approx(4)
    assert float(losses.uniformity(collapsed)) == pytest.approx(0, abs=1e-5)
    assert float(losses.effective_rank(collapsed)) == pytest.approx(1, abs=0.01)
    assert float(losses.effective_rank(np.eye(8))) == pytest.approx(8, rel=1e-4)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="alignment needs arrays of one shape"):
        losses.alignment(X, Y[:1])
    assert np.isnan(losses.uniformity(X[:1]))
    with pytest.raises(ValueError, match="dino_center needs a centre"):
        losses.dino_center(np.zeros(7), X)
