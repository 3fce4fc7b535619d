"""Attention in one kernel: padding changes nothing; on a GPU cuDNN's equals the plain one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sp_jax import models
from sp_jax.models import attention, vit
from sp_jax.models.config import make_backbone

KEYS = jax.random.split(jax.random.key(0), 4)


@pytest.mark.parametrize("tokens", [5, 6])
def test_tokens_that_fill_up_are_not_attended_to(tokens):
    heads = [jax.random.normal(key, (3, 6, 2, 8)) for key in KEYS]
    q, k, v, weights = (x[:, :tokens] for x in heads)
    plain, plain_vjp = jax.vjp(attention.attend, q, k, v)
    padded = functools.partial(
        attention.attend_padded, tokens=tokens, implementation="xla"
    )
    found, vjp = jax.vjp(padded, *heads[:3])
    np.testing.assert_allclose(found[:, :tokens], plain, rtol=1e-5, atol=1e-6)
    assert not found[:, tokens:].any()
    # Whatever comes back to them goes nowhere.
    for own, expected in zip(vjp(heads[3]), plain_vjp(weights), strict=True):
        np.testing.assert_allclose(own[:, :tokens], expected, rtol=1e-4, atol=1e-6)
        assert not own[:, tokens:].any()


@pytest.mark.parametrize("kind", ["cls", "mean", "cls4", "map"])
@pytest.mark.parametrize("size", [24, 40])  # 10 and 26 tokens, or 9 and 25 patches
def test_vit_in_one_kernel_is_the_plain_one(kind, size, monkeypatch):
    options = {"dim": 16, "depth": 4, "heads": 2, "patch_size": 8, "image_size": 24}
    make = functools.partial(vit.ViT, **options, tokens=kind)
    x = jax.random.normal(KEYS[0], (2, size, size + 8, 3))
    variables = make().init(KEYS[1], x, True)

    def loss(params, attention):
        features = make(attention=attention).apply({"params": params}, x, True)
        return (features**2).sum(), features

    def outcome(name):
        grad = jax.grad(loss, has_aux=True)
        return jax.jit(grad, static_argnums=1)(variables["params"], name)

    plain = outcome("xla")
    monkeypatch.setattr(vit, "fits_cudnn", lambda *_: True)
    calls = []

    def in_xla(*heads):
        calls.append(heads[0].shape[1])
        return attention.attend_padded(*heads, implementation="xla")

    monkeypatch.setattr(vit, "attend_padded", in_xla)
    found = outcome("cudnn")
    assert len(calls) == 4 and not any(count % 2 for count in calls)
    # By leaf: an element near 0 is as inexact as the large ones whose sums it shares.
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(plain), strict=True):
        atol = 5e-5 * float(jnp.abs(other).max()) + 1e-5
        np.testing.assert_allclose(one, other, rtol=0, atol=atol)


def test_where_there_is_no_gpu_it_is_plain_and_training_says_so():
    backbone = models.get("vit_tiny", attention="cudnn", dtype=jnp.bfloat16)
    if jax.default_backend() != "gpu":
        assert not backbone.one_kernel
        options = {"name": "vit_tiny", "attention": "cudnn"}
        with pytest.raises(ValueError, match="needs a GPU"):
            make_backbone(options, "bfloat16", [64], train=True)
        assert make_backbone(options, "bfloat16", [64], train=False) == backbone
    with pytest.raises(ValueError, match="choose 'auto', 'xla' or 'cudnn'"):
        models.get("vit_tiny", attention="flash")


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN needs a GPU")
def test_cudnn_is_the_plain_one():
    """Both round to 8 bits, so each is compared with float32."""
    x = jax.random.normal(KEYS[0], (8, 64, 64, 3))

    def outcome(attention, dtype):
        module = models.get("vit_small", patch_size=8, attention=attention, dtype=dtype)
        params = jax.jit(module.init, static_argnums=2)(KEYS[1], x, True)["params"]

        def loss(params):
            features = module.apply({"params": params}, x, True)
            return (features**2).mean(), features

        return jax.jit(jax.grad(loss, has_aux=True))(params)

    def distance(one, other):
        pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
        norms = [
            (jnp.linalg.norm((a - b).ravel()), jnp.linalg.norm(b.ravel()))
            for a, b in pairs
        ]
        return max(float(error / norm) for error, norm in norms if norm > 1e-6)

    exact = outcome("xla", jnp.float32)
    plain = distance(outcome("xla", jnp.bfloat16), exact)
    assert distance(outcome("cudnn", jnp.bfloat16), exact) < 1.5 * plain + 1e-3
