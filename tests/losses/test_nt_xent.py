"""NT-Xent against an independent derivation in float64 numpy, value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sp_jax.losses import l2_normalize, nt_xent


def reference(z1, z2, temperature):
    """Loss and gradients by loops over rows, in float64."""
    z = np.concatenate([z1, z2]).astype(np.float64)
    norms = np.linalg.norm(z, axis=1, keepdims=True)
    u = z / norms
    total, n = len(z), len(z1)
    loss, du = 0.0, np.zeros_like(u)
    for i in range(total):
        others = [j for j in range(total) if j != i]
        positive = (i + n) % total
        s = u[others] @ u[i] / temperature
        p = np.exp(s - s.max())
        p /= p.sum()
        k = others.index(positive)
        loss -= (s[k] - s.max() - np.log(np.exp(s - s.max()).sum())) / total
        coefficient = p.copy()
        coefficient[k] -= 1
        coefficient /= total * temperature
        du[i] += coefficient @ u[others]
        du[others] += coefficient[:, None] * u[i]
    dz = (du - u * np.sum(u * du, axis=1, keepdims=True)) / norms
    return loss, dz[:n], dz[n:]


CASES = {
    "random": lambda r: (r.normal(size=(16, 8)), r.normal(size=(16, 8))),
    "batch of 2": lambda r: (r.normal(size=(2, 4)), r.normal(size=(2, 4))),
    "identical views": lambda r: (r.normal(size=(8, 5)),) * 2,
    "collapsed": lambda r: (np.ones((8, 5)), np.ones((8, 5))),
    "huge norms": lambda r: (1e6 * r.normal(size=(8, 5)), 1e4 * r.normal(size=(8, 5))),
    "opposite views": lambda r: (lambda z: (z, -z))(r.normal(size=(8, 5))),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("temperature", [0.05, 0.1, 0.5])
def test_value_and_gradient(case, temperature):
    z1, z2 = (z.astype(np.float32) for z in CASES[case](np.random.default_rng(0)))
    loss, grads = jax.value_and_grad(nt_xent, argnums=(0, 1))(z1, z2, temperature)
    expected, *expected_grads = reference(z1, z2, temperature)
    assert float(loss) == pytest.approx(expected, rel=2e-5, abs=2e-5)
    for got, want in zip(grads, expected_grads, strict=True):
        scale = max(np.abs(want).max(), 1e-6 / np.linalg.norm(z1, axis=1).mean())
        np.testing.assert_allclose(got / scale, want / scale, atol=5e-4)


def test_collapsed_features_give_the_log_of_the_choices():
    z = jnp.ones((8, 5))
    assert float(nt_xent(z, z)) == pytest.approx(np.log(2 * 8 - 1), rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.1, 0.5]))
def test_batch_order_view_order_and_scale_do_not_matter(seed, temperature):
    rng = np.random.default_rng(seed)
    z1, z2 = rng.normal(size=(2, 8, 6)).astype(np.float32)
    order = rng.permutation(8)
    loss = float(nt_xent(z1, z2, temperature))
    assert float(nt_xent(z2, z1, temperature)) == pytest.approx(loss, rel=1e-5)
    permuted = float(nt_xent(z1[order], z2[order], temperature))
    assert permuted == pytest.approx(loss, rel=1e-5)
    assert float(nt_xent(7 * z1, z2 / 3, temperature)) == pytest.approx(loss, rel=1e-5)


def test_bfloat16_is_computed_in_float32():
    z1, z2 = np.random.default_rng(0).normal(size=(2, 8, 6))
    z1, z2 = jnp.asarray(z1, jnp.bfloat16), jnp.asarray(z2, jnp.bfloat16)
    loss = nt_xent(z1, z2)
    assert loss.dtype == jnp.float32
    expected = nt_xent(z1.astype(jnp.float32), z2.astype(jnp.float32))
    assert float(loss) == float(expected)


def test_zero_rows_have_a_finite_gradient():
    gradient = jax.grad(lambda x: l2_normalize(x)[0])(jnp.zeros(3))
    np.testing.assert_allclose(gradient, [1e6, 0, 0], rtol=1e-5)
    grads = jax.grad(nt_xent)(jnp.zeros((4, 3)), jnp.ones((4, 3)))
    assert np.isfinite(grads).all()


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"\(4, 3\) and \(5, 3\)"):
        nt_xent(jnp.zeros((4, 3)), jnp.zeros((5, 3)))
