"""Layer normalisation with a backward pass by hand is flax's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sp_jax.models.layers import LayerNorm

MINE, FLAX = (
    make(dtype=jnp.float64)
    for make in (
        LayerNorm,
        lambda dtype: nn.LayerNorm(1e-6, use_fast_variance=False, dtype=dtype),
    )
)


def test_equals_flax_with_its_gradient_in_float64():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x, weights = rng.normal(3, 5, (2, 4, 7, 6))
        params = {"scale": rng.normal(size=6), "bias": rng.normal(size=6)}

        def outcome(module):
            def loss(params, x):
                y = module.apply({"params": params}, x)
                return (weights * y).sum(), y

            grad = jax.grad(loss, argnums=(0, 1), has_aux=True)
            return jax.jit(grad)(params, x)

        assert jax.tree.map(jnp.shape, MINE.init(jax.random.key(0), x)) == jax.tree.map(
            jnp.shape, FLAX.init(jax.random.key(0), x)
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12),
            outcome(MINE),
            outcome(FLAX),
        )


@pytest.mark.parametrize("mean", [0, 1000])
def test_a_large_mean_does_not_cancel(mean):
    x = np.random.default_rng(0).normal(mean, 1, (5, 64)).astype(np.float32)
    y, variables = LayerNorm(dtype=jnp.bfloat16).init_with_output(jax.random.key(0), x)
    wide = x.astype(np.float64)
    expected = (wide - wide.mean(-1, keepdims=True)) / wide.std(-1, keepdims=True)
    assert y.dtype == jnp.bfloat16 and variables["params"]["scale"].dtype == jnp.float32
    np.testing.assert_allclose(y.astype(np.float32), expected, rtol=0.01, atol=0.01)
