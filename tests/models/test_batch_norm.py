"""Batch normalisation against float64, far from a mean of zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sp_jax.models.layers import batch_norm


@pytest.mark.parametrize("ratio", [0, 10, 30, 300])
@pytest.mark.parametrize("shape", [(256, 16), (64, 8, 8, 16)])
def test_the_variance_is_within_its_bound(ratio, shape):
    """The bound that the docstring promises; ratio: of mean and standard deviation."""
    x = np.random.default_rng(0).normal(ratio, 1.0, shape).astype(np.float32)
    axes = tuple(range(len(shape) - 1))
    ones, zeros = jnp.ones(shape[-1]), jnp.zeros(shape[-1])
    y, mean, var = jax.jit(batch_norm)(x, ones, zeros, 1e-5)
    exact = x.astype(np.float64)
    bound = 2.0**-20 * (1 + ratio**2)
    np.testing.assert_allclose(mean, exact.mean(axes), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(var, exact.var(axes), rtol=bound)
    want = (exact - exact.mean(axes)) / np.sqrt(exact.var(axes) + 1e-5)
    np.testing.assert_allclose(y, want, rtol=bound, atol=bound)
