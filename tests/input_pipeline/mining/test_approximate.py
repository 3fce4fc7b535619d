"""Neighbours by an index: exact in small groups, nearly so in large ones."""

import numpy as np
import pytest

from input_pipeline.mining import approximate
from sp_jax import neighbours

pytest.importorskip("faiss")
RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(60, 16))
FEATURES = CENTRES[np.arange(3000) % 60] + RNG.normal(size=(3000, 16))


def test_small_groups_are_exact():
    groups = np.arange(3000) % 700  # Of four and five.
    groups[:5] = 1000 + np.arange(5)  # And some alone.
    copies = FEATURES.copy()
    copies[700:1400] = copies[:700]  # An image and its copy: which is itself?
    _, want = neighbours.nearest_others(copies, 4, groups)
    rows, cosines = approximate.nearest_others(copies, 4, groups)
    np.testing.assert_allclose(cosines, want, atol=1e-5)
    there = rows >= 0
    np.testing.assert_array_equal(there, np.isfinite(want))
    own = np.broadcast_to(np.arange(3000)[:, None], rows.shape)
    assert (groups[rows] == groups[own])[there].all() and (rows != own)[there].all()


def test_a_large_group_is_nearly_exact(monkeypatch):
    monkeypatch.setattr(approximate, "EXACT", 1000)
    monkeypatch.setattr(approximate, "_SAMPLE", 3000)
    groups = np.zeros(3000, int)
    groups[:10] = 1 + np.arange(10)
    want, _ = neighbours.nearest_others(FEATURES, 5, groups)
    found, cosines = approximate.nearest_others(FEATURES, 5, groups)
    assert not (found == np.arange(3000)[:, None]).any()
    assert (found[:10] == -1).all() and np.isinf(cosines[:10]).all()
    hits = [np.isin(a, b).sum() for a, b in zip(want[10:], found[10:], strict=True)]
    share = np.sum(hits) / (2990 * 5)
    assert 0.9 < share < 1
    assert approximate.recall(FEATURES, found, groups) == pytest.approx(share, abs=1e-3)
