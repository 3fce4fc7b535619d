"""Neighbours in blocks: equal to the whole, to scikit-learn, and bounded in memory."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from sp_jax import neighbours

GIB = 2**30


def shrink(monkeypatch, rows, queries):
    """Blocks of so many rows of the bank, and about so many queries."""
    monkeypatch.setattr(neighbours, "_ROWS", rows)
    monkeypatch.setattr(neighbours, "_BUDGET", rows * queries)


def test_blocks_agree_with_scikit_learn(monkeypatch):
    rng = np.random.default_rng(0)
    queries, bank = rng.standard_normal((70, 8)), rng.standard_normal((403, 8))
    shrink(monkeypatch, rows=50, queries=16)  # Less than k; the last block has 3.
    rows, cosines = neighbours.nearest(queries, bank, 60)
    distance, expected = (
        NearestNeighbors(n_neighbors=60, metric="cosine").fit(bank).kneighbors(queries)
    )
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(cosines, 1 - distance, atol=1e-6)


@hypothesis.settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(seed=st.integers(0, 2**32 - 1), height=st.sampled_from([4, 9, 16]))
def test_equal_cosines_come_in_the_order_of_rows(monkeypatch, seed, height):
    """Signed unit vectors: cosines are -1, 0 and 1, so most are equal."""
    rng = np.random.default_rng(seed)
    axis, sign = rng.integers(0, 3, 40), rng.choice([-2.0, 3.0], 40)
    bank = np.eye(3)[axis] * sign[:, None]
    queries = np.eye(3)[rng.integers(0, 3, 5)]
    kinds = rng.integers(0, 2, 40), rng.integers(0, 2, 5)
    shrink(monkeypatch, rows=height, queries=3)
    rows, cosines = neighbours.nearest(
        queries, bank, 25, allowed=differs, tags=(kinds[1], kinds[0])
    )
    exact = queries @ np.sign(bank).T
    exact[kinds[1][:, None] == kinds[0]] = -np.inf
    expected = np.argsort(-exact, axis=1, kind="stable")[:, :25]
    best = np.take_along_axis(exact, expected, axis=1)
    np.testing.assert_array_equal(cosines, best)
    np.testing.assert_array_equal(rows, np.where(np.isfinite(best), expected, -1))


def differs(kind, kinds):
    return kind[:, None] != kinds


@pytest.mark.parametrize("width", [128, 2048])
def test_a_million_keys_are_bounded(width):
    """Counted by the compiler, for the largest block that a search makes."""
    height = neighbours.block_height(width)
    assert height < 10**6
    queries = min(1024, neighbours._BUDGET // height)
    assert queries >= 256  # Fewer would leave an accelerator idle.
    number, k = jnp.float32, 200
    program = neighbours._merge.lower(
        (jax.ShapeDtypeStruct((queries, width), number), ()),
        (jax.ShapeDtypeStruct((height, width), number), ()),
        jax.ShapeDtypeStruct((), jnp.int32),
        jax.ShapeDtypeStruct((queries, k), jnp.int32),
        jax.ShapeDtypeStruct((queries, k), number),
        None,
    ).compile()
    memory = program.memory_analysis()
    assert memory.argument_size_in_bytes <= 1.1 * GIB
    assert memory.temp_size_in_bytes <= 0.3 * GIB
    # The quick selection, not a sort of whole rows.
    assert "TopK" in program.as_text() and " sort(" not in program.as_text()


def test_a_block_leaves_the_device_before_the_next_one(monkeypatch):
    """Of the bank at most one block, and the queries' results stay in host memory."""
    shrink(monkeypatch, rows=100, queries=8)
    held, merge = [], neighbours._merge

    def spy(*arguments):
        held.append(sum(x.size for x in jax.live_arrays() if x.shape[1:] == (37,)))
        return merge(*arguments)

    monkeypatch.setattr(neighbours, "_merge", spy)
    bank = np.random.default_rng(0).standard_normal((1000, 37))
    neighbours.nearest(bank[:20], bank, 5)
    assert len(held) == 30 and set(held) == {100 * 37}
