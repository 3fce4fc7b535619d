"""Batch normalisation against float64, far from a mean of zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sp_jax.models.layers import batch_norm
from tests.torchvision_ref import torch


@pytest.mark.parametrize("ratio", [0, 10, 30, 300])
@pytest.mark.parametrize("shape", [(256, 16), (64, 8, 8, 16)])
def test_the_variance_is_within_its_bound(ratio, shape):
    """The bound that the docstring promises; ratio: of mean and standard deviation."""
    x = np.random.default_rng(0).normal(ratio, 1.0, shape).astype(np.float32)
    axes = tuple(range(len(shape) - 1))
    ones, zeros = jnp.ones(shape[-1]), jnp.zeros(shape[-1])
    y, (mean,), (var,) = jax.jit(batch_norm)(x, ones, zeros, 1e-5)
    exact = x.astype(np.float64)
    bound = 2.0**-20 * (1 + ratio**2)
    np.testing.assert_allclose(mean, exact.mean(axes), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(var, exact.var(axes), rtol=bound)
    want = (exact - exact.mean(axes)) / np.sqrt(exact.var(axes) + 1e-5)
    np.testing.assert_allclose(y, want, rtol=bound, atol=bound)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])  # whose form of the sums
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("rectify", [False, True])
def test_equals_pytorch(backend, groups, rectify, monkeypatch):
    """Values and gradients, of the definition in float64, each group by itself."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    rng = np.random.default_rng(1)
    x = rng.normal(0.5, 2.0, (8, 3, 5, 6)).astype(np.float32)
    scale = np.array([1.5, -0.5, 0.0, 1.0, 0.1, 2.0], np.float32)
    bias = rng.normal(size=6).astype(np.float32)
    pull = rng.normal(size=x.shape).astype(np.float32)

    def ours(x, scale, bias):
        y, _, _ = batch_norm(x, scale, bias, 1e-5, rectify, groups)
        return jnp.vdot(y, pull), y

    (_, y), grads = jax.jit(jax.value_and_grad(ours, (0, 1, 2), has_aux=True))(
        x, scale, bias
    )

    inputs = [torch.tensor(a, dtype=torch.float64) for a in (x, scale, bias)]
    for one in inputs:
        one.requires_grad_()
    want = torch.empty(x.shape, dtype=torch.float64)
    for group in range(groups):
        rows = torch.movedim(inputs[0][group::groups], -1, 1)
        rows = torch.nn.functional.batch_norm(
            rows, None, None, *inputs[1:], training=True
        )
        want[group::groups] = torch.movedim(rows.relu() if rectify else rows, 1, -1)
    want.backward(torch.tensor(pull, dtype=torch.float64))
    np.testing.assert_allclose(y, want.detach(), atol=1e-5)
    for got, one in zip(grads, inputs, strict=True):
        np.testing.assert_allclose(got, one.grad, rtol=1e-4, atol=1e-4)
