"""Properties of the formulas: symmetries, stopped branches, first values, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from sp_jax import losses

K = 7


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


QUEUE = unit(normal(9, 10, K))
TWO_VIEWS = {
    "byol": losses.byol,
    "simsiam": losses.simsiam,
    "barlow_twins": losses.barlow_twins,
    "vicreg": losses.vicreg,
    "moco_v2": functools.partial(losses.moco_v2, queue=QUEUE),
    "moco_v3": losses.moco_v3,
    "nnclr": losses.nnclr,
    "swav": lambda x, y: losses.swav(x, losses.sinkhorn(y)),
    "dino": lambda x, y: losses.dino(
        jnp.stack([x, x]), jnp.stack([y, y]), jnp.zeros(K)
    ),
    "nce": lambda x, y: losses.nce(x, losses.l2_normalize(y), QUEUE, 10.0, 100),
    "memory_info_nce": lambda x, y: losses.memory_info_nce(
        x, losses.l2_normalize(y), QUEUE
    ),
    "deepcluster": lambda x, y: losses.deepcluster(x, jnp.argmax(y, axis=1)),
}


@pytest.mark.parametrize("name", TWO_VIEWS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_the_order_of_the_batch_does_not_matter(name, seed):
    x, y = normal(seed, 2, 8, K)
    order = np.random.default_rng(seed).permutation(8)
    value = float(TWO_VIEWS[name](x, y))
    assert float(TWO_VIEWS[name](x[order], y[order])) == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("name", ["byol", "simsiam", "barlow_twins", "vicreg"])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_the_order_of_the_views_does_not_matter(name, seed):
    x, y = normal(seed, 2, 8, K)
    value = float(TWO_VIEWS[name](x, y))
    assert float(TWO_VIEWS[name](y, x)) == pytest.approx(value, rel=1e-5)


# In DeepCluster the second argument only gives integers.
@pytest.mark.parametrize(
    "name", sorted(set(TWO_VIEWS) - {"barlow_twins", "vicreg", "deepcluster"})
)
def test_no_gradient_into_the_stopped_branch(name):
    x, y = normal(0, 2, 8, K)
    dx, dy = jax.grad(TWO_VIEWS[name], argnums=(0, 1))(x, y)
    assert np.any(dx) and not np.any(dy)


def test_no_gradient_into_memories_codes_and_centres():
    x, y = normal(0, 2, 8, K)
    stopped = [
        jax.grad(losses.moco_v2, argnums=2)(x, y, QUEUE),
        *jax.grad(losses.nce, argnums=(1, 2, 3))(x, unit(y), QUEUE, 10.0, 100),
        *jax.grad(losses.memory_info_nce, argnums=(1, 2))(x, unit(y), QUEUE),
        jax.grad(lambda s: losses.sinkhorn(s).max())(x),
        jax.grad(losses.swav, argnums=1)(x, losses.sinkhorn(y)),
        *jax.grad(losses.dino, argnums=(1, 2, 4))(
            x[None].repeat(2, 0), y[None], QUEUE[0], 0.1, 0.04
        ),
        jax.grad(lambda t: losses.dino_center(QUEUE[0], t).sum())(y[None]),
        jax.grad(lambda v: losses.nce_normalizer(v, QUEUE, 10))(x),
    ]
    assert not any(np.any(gradient) for gradient in stopped)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_ranges(seed):
    x, y = normal(seed, 2, 8, K)
    cosine = np.mean(np.sum(unit(x) * unit(y), axis=1))
    assert float(losses.byol(x, y)) == pytest.approx(2 - 2 * cosine, abs=1e-5)
    assert float(losses.simsiam(x, y)) == pytest.approx(-cosine, abs=1e-5)
    assert float(losses.byol(x, x)) == pytest.approx(0, abs=1e-5)
    assert float(losses.byol(x, -x)) == pytest.approx(4, abs=1e-5)
    assert float(losses.simsiam(x, x)) == pytest.approx(-1, abs=1e-5)
    assert float(losses.barlow_twins(x, y)) >= 0 and float(losses.vicreg(x, y)) >= 0


def test_first_values():
    """With small random logits the cross entropies start at the log of the choices."""
    k = 256
    scores = 1e-3 * normal(0, 6, 32, k)
    dino = losses.dino(scores, scores[:2], jnp.zeros(k))
    swav = losses.swav(scores[0], losses.sinkhorn(scores[1]))
    clusters = losses.deepcluster(scores[0], jnp.arange(32))
    for value in (dino, swav, clusters):
        assert float(value) == pytest.approx(np.log(k), abs=0.02)
    same = jnp.ones((32, 8))
    assert float(losses.moco_v3(same, same, 0.2)) == pytest.approx(0.4 * np.log(32))
    assert float(losses.nnclr(same, same)) == pytest.approx(np.log(32), rel=1e-5)
    queue = jnp.ones((63, 8)) / 8**0.5
    assert float(losses.moco_v2(same, same, queue)) == pytest.approx(
        np.log(64), rel=1e-5
    )


@pytest.mark.parametrize("name", TWO_VIEWS)
def test_bfloat16_is_computed_in_float32(name):
    x, y = (jnp.asarray(z, jnp.bfloat16) for z in normal(0, 2, 8, K))
    value = TWO_VIEWS[name](x, y)
    assert value.dtype == jnp.float32
    wide = TWO_VIEWS[name](x.astype(jnp.float32), y.astype(jnp.float32))
    assert float(value) == pytest.approx(float(wide), rel=1e-6)


@pytest.mark.parametrize("name", TWO_VIEWS)
def test_zero_rows_are_finite(name):
    x, y = normal(0, 2, 8, K)
    for a, b in ((0 * x, y), (x, 0 * y), (0 * x, 0 * y)):
        value, grads = jax.value_and_grad(TWO_VIEWS[name], argnums=(0, 1))(a, b)
        assert np.isfinite(value) and all(np.isfinite(g).all() for g in grads)


@pytest.mark.parametrize("name", sorted(set(TWO_VIEWS) - {"dino", "deepcluster"}))
def test_shapes_are_checked(name):
    with pytest.raises(ValueError, match=r"\(4, 7\).*\(5, 7\)"):
        TWO_VIEWS[name](jnp.zeros((4, K)), jnp.zeros((5, K)))


def test_other_shapes_are_checked():
    x = jnp.zeros((4, K))
    with pytest.raises(ValueError, match="one width D"):
        losses.moco_v2(x, x, jnp.zeros((5, 3)))
    with pytest.raises(ValueError, match="one width D"):
        losses.nearest_neighbours(x, jnp.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"\[V, N, K\]"):
        losses.dino(x[None], x[None], jnp.zeros(K))
    with pytest.raises(ValueError, match="targets"):
        losses.deepcluster(x, jnp.zeros(3, int))
    with pytest.raises(ValueError, match="fewer clusters"):
        losses.spherical_kmeans(jax.random.key(0), x, 9)
    with pytest.raises(ValueError, match="2 pairs"):
        losses.vicreg(x[:1], x[:1])


def test_deepcluster_without_targets_is_zero():
    value, gradient = jax.value_and_grad(losses.deepcluster)(
        normal(0, 4, K), jnp.full(4, -100)
    )
    assert float(value) == 0.0 and not np.any(gradient)


@pytest.mark.parametrize("chunk", [7, 40, 4096])
def test_kmeans_equals_a_loop_in_numpy(chunk):
    points = unit(normal(0, 40, K))
    valid = np.arange(40) % 5 != 0
    points[~valid] = 0.0
    kmeans = functools.partial(
        losses.spherical_kmeans, points=points, num_clusters=6, valid=valid, chunk=chunk
    )
    centroids, _ = kmeans(jax.random.key(3), iterations=0)
    start = np.asarray(centroids, np.float64)
    # The first centroids are six different valid points.
    assert len({tuple(c) for c in start}) == 6
    assert all((np.abs(points[valid] - c).max(axis=1) < 1e-6).any() for c in start)
    want = start
    for _ in range(4):
        cluster = (points[valid] @ want.T).argmax(axis=1)
        means = [points[valid][cluster == k].sum(axis=0) for k in range(6)]
        want = np.stack(
            [unit(m) if np.any(m) else c for m, c in zip(means, want, strict=True)]
        )
    centroids, cluster = kmeans(jax.random.key(3), iterations=4)
    np.testing.assert_allclose(centroids, want, atol=1e-5)
    expected = np.where(valid, (points @ want.T).argmax(axis=1), -100)
    np.testing.assert_array_equal(cluster, expected)


def test_kmeans_finds_what_scikit_learn_finds():
    centres = 4 * np.eye(8, dtype=np.float32)[:5]
    truth = np.repeat(np.arange(5), 60)
    points = unit(centres[truth] + 0.3 * normal(0, 300, 8))
    theirs = KMeans(5, n_init=5, random_state=0).fit_predict(points)
    assert adjusted_rand_score(truth, theirs) == 1.0
    # One start may merge two clusters; the best of several does not.
    scores = []
    for seed in range(10):
        _, ours = losses.spherical_kmeans(jax.random.key(seed), points, 5)
        scores.append(adjusted_rand_score(theirs, ours))
    assert max(scores) == 1.0


def test_fewer_valid_points_than_clusters():
    points = unit(normal(0, 8, K))
    valid = np.arange(8) < 3
    points[~valid] = 0.0
    centroids, cluster = losses.spherical_kmeans(
        jax.random.key(0), points, 5, valid=jnp.asarray(valid)
    )
    assert len(set(np.asarray(cluster[:3]))) == 3
    np.testing.assert_allclose(centroids[cluster[:3]], points[:3], atol=1e-6)
    assert np.sum(np.any(centroids != 0, axis=1)) == 3
    np.testing.assert_array_equal(cluster[3:], -100)


def test_an_empty_cluster_keeps_its_centroid():
    points = np.repeat(unit(normal(0, 1, K)), 10, axis=0)
    centroids, cluster = losses.spherical_kmeans(jax.random.key(0), points, 3)
    np.testing.assert_allclose(centroids, points[:3], atol=1e-6)
    assert set(np.asarray(cluster)) == {0}
