"""Value and gradient of each loss against float64 numpy, on ordinary and extreme input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sp_jax import losses
from tests.losses import reference

INPUTS = {
    "random": lambda r: r.normal(size=(2, 12, 6)),
    "batch of 2": lambda r: r.normal(size=(2, 2, 6)),
    "identical views": lambda r: np.stack([r.normal(size=(8, 6))] * 2),
    "opposite views": lambda r: (lambda z: np.stack([z, -z]))(r.normal(size=(8, 6))),
    "nearly collapsed": lambda r: 1 + 1e-2 * r.normal(size=(2, 8, 6)),
    "collapsed": lambda r: np.ones((2, 8, 6)),
    "huge norms": lambda r: 1e5 * r.normal(size=(2, 8, 6)),
    "tiny norms": lambda r: 1e-3 * r.normal(size=(2, 8, 6)),
}


def unit_rows(seed, rows, width=6):
    return reference.unit(np.random.default_rng(seed).normal(size=(rows, width)))


def float32(x):
    return np.asarray(x, np.float32).astype(np.float64)


QUEUE = float32(unit_rows(1, 10))
CENTER = float32(np.random.default_rng(3).normal(size=6))
LABELS = np.array([0, 0, -1, 1, 0, -1, 1, 3, 3, 3, 3, 9])
TARGETS = np.array([0, 5, -100, 1, 2, 2, 3, 4, 5, -100, 0, 1])

# name: loss of (x, y) by the library, the same by the reference, and what becomes of the
# gradient by y: it "flows", is "stopped", or there is "none", since y only gives integers.
LOSSES = {
    "byol": (losses.byol, reference.byol, "stopped"),
    "simsiam": (losses.simsiam, reference.simsiam, "stopped"),
    "barlow_twins": (losses.barlow_twins, reference.barlow_twins, "flows"),
    "vicreg": (losses.vicreg, reference.vicreg, "flows"),
    "moco_v2": (
        lambda x, y: losses.moco_v2(x, y, QUEUE),
        lambda x, y: reference.moco_v2(x, y, QUEUE),
        "stopped",
    ),
    "moco_v3": (losses.moco_v3, reference.moco_v3, "stopped"),
    "moco_v3 at 0.2": (
        lambda x, y: losses.moco_v3(x, y, 0.2),
        lambda x, y: reference.moco_v3(x, y, 0.2),
        "stopped",
    ),
    "nnclr": (
        lambda x, y: losses.nnclr(x, y, 0.2),
        lambda x, y: reference.nnclr(x, y, 0.2),
        "stopped",
    ),
    # The second argument only chooses rows.
    "nnclr of neighbours": (
        lambda x, y: losses.nnclr(x, QUEUE[losses.nearest_neighbours(y, QUEUE)]),
        lambda x, y: reference.nnclr(x, reference.nearest(y, QUEUE)),
        "none",
    ),
    "supcon": (
        lambda x, y: losses.supcon(x, y, LABELS[: len(y)]),
        lambda x, y: reference.supcon(x, y, LABELS[: len(y)]),
        "flows",
    ),
    "supcon at 0.5": (
        lambda x, y: losses.supcon(x, y, LABELS[: len(y)], 0.5),
        lambda x, y: reference.supcon(x, y, LABELS[: len(y)], 0.5),
        "flows",
    ),
    "swav": (
        lambda x, y: losses.swav(x, jax.nn.softmax(y)),
        lambda x, y: reference.swav(x, np.exp(reference.log_softmax(y))),
        "stopped",
    ),
    "deepcluster": (
        lambda x, y: losses.deepcluster(x, TARGETS[: len(y)]),
        lambda x, y: reference.deepcluster(x, TARGETS[: len(y)]),
        "none",
    ),
    "dino": (
        lambda x, y: losses.dino(jnp.stack([x, 2 * x, -x]), jnp.stack([y, -y]), CENTER),
        lambda x, y: reference.dino([x, 2 * x, -x], [y, -y], CENTER),
        "stopped",
    ),
    "nce": (
        lambda x, y: losses.nce(x, losses.l2_normalize(y), QUEUE, 50.0, 100),
        lambda x, y: reference.nce(x, reference.unit(y), QUEUE, 50.0, 100),
        "stopped",
    ),
    "memory_info_nce": (
        lambda x, y: losses.memory_info_nce(x, losses.l2_normalize(y), QUEUE),
        lambda x, y: reference.memory_info_nce(x, reference.unit(y), QUEUE),
        "stopped",
    ),
}


@pytest.mark.parametrize("case", INPUTS)
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient(name, case):
    ours, theirs, second = LOSSES[name]
    x, y = float32(INPUTS[case](np.random.default_rng(0)))
    value, (dx, dy) = jax.value_and_grad(ours, argnums=(0, 1))(
        jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
    )
    assert float(value) == pytest.approx(theirs(x, y), rel=3e-5, abs=3e-5)
    directions = [(dx, x, lambda z: theirs(z, y))]
    if second == "stopped":
        assert not np.any(dy)
    elif second == "flows":
        directions.append((dy, y, lambda z: theirs(x, z)))
    for got, at, loss in directions:
        want = reference.derivative(loss, at)
        # A gradient at a minimum is a difference of terms of the size 1 / |x|, and the
        # rounding of these is left.
        rounding = 5e-6 / np.sqrt(np.mean(at**2)) / len(at)
        atol = 1e-4 * np.abs(want).max() + rounding
        np.testing.assert_allclose(got, want, rtol=0, atol=atol)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 4.0])
@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_sinkhorn(scale, iterations):
    scores = scale * np.random.default_rng(0).normal(size=(16, 5))
    codes = losses.sinkhorn(jnp.asarray(scores), 0.05, iterations)
    want = reference.sinkhorn(float32(scores), 0.05, iterations)
    np.testing.assert_allclose(codes, want, atol=1e-4)
    np.testing.assert_allclose(codes.sum(axis=1), 1, atol=1e-5)


def test_sinkhorn_uses_all_prototypes_alike():
    scores = np.random.default_rng(0).normal(size=(60, 6)) + np.arange(6)
    codes = losses.sinkhorn(jnp.asarray(scores), 0.5, 50)
    np.testing.assert_allclose(codes.sum(axis=0), 10, rtol=1e-2)
    # exp(1000 / 0.05) is beyond any float.
    assert np.isfinite(losses.sinkhorn(1000.0 * jnp.asarray(scores))).all()


def test_center_is_the_mean_of_raw_logits():
    teacher = np.random.default_rng(0).normal(size=(2, 5, 3))
    got = losses.dino_center(jnp.ones(3), jnp.asarray(teacher), 0.8)
    np.testing.assert_allclose(got, 0.8 + 0.2 * teacher.mean(axis=(0, 1)), rtol=1e-5)


def test_normalizer_of_nce():
    v, m = np.random.default_rng(0).normal(size=(2, 5, 3))
    want = np.mean(np.exp(reference.unit(v) @ m.T / 0.5)) * 77
    got = losses.nce_normalizer(jnp.asarray(v), jnp.asarray(m), 77, 0.5)
    assert float(got) == pytest.approx(want, rel=1e-5)
