"""SimCLR: sizes, the state of batch normalisation, and that the gradient reaches all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sp_jax import methods, models
from sp_jax.losses import nt_xent

BACKBONE = models.get("resnet18", width=8)


@pytest.fixture(scope="module")
def simclr():
    run = methods.RunSize(100, 10, 6, 50)
    method = methods.get("simclr").create(
        BACKBONE, run, temperature=0.3, projection_dim=16
    )
    views = list(
        np.random.default_rng(0).normal(size=(2, 6, 32, 32, 3)).astype("float32")
    )
    params, state = jax.jit(method.init)(jax.random.key(0), views)
    return method, params, state, views


def test_head_is_the_official_one(simclr):
    _, params, _, _ = simclr
    head = params["projector"]
    assert [head[f"dense{i}"]["kernel"].shape for i in range(3)] == [
        (64, 64),
        (64, 64),
        (64, 16),
    ]
    assert not any("bias" in head[f"dense{i}"] for i in range(3))
    assert set(head["bn0"]) == {"scale", "bias"} and set(head["bn2"]) == {"scale"}
    assert float(jnp.std(head["dense0"]["kernel"])) == pytest.approx(0.01, rel=0.1)


def test_loss_is_nt_xent_of_one_joint_forward(simclr):
    method, params, state, views = simclr
    key = jax.random.key(1)
    (loss, out), grads = jax.jit(jax.value_and_grad(method.loss, has_aux=True))(
        params, state, methods.Batch(views, None, None, 0), key
    )
    assert out.features.shape == (6, 2, 64)
    # The head alone on the returned features gives the same loss.
    head = models.SimCLRHead(16, 3)
    z, _ = head.apply(
        {
            "params": params["projector"],
            "batch_stats": state["batch_stats"]["projector"],
        },
        out.features.reshape(12, 64),
        True,
        mutable=["batch_stats"],
    )
    z = z.reshape(6, 2, 16)
    assert float(loss) == pytest.approx(float(nt_xent(z[:, 0], z[:, 1], 0.3)), rel=1e-4)
    # Views that swap places change nothing.
    other = methods.Batch(views[::-1], None, None, 0)
    swapped, _ = jax.jit(method.loss)(params, state, other, key)
    assert float(swapped) == pytest.approx(float(loss), rel=1e-4)
    before = state["batch_stats"]["backbone"]["bn1"]["mean"]
    assert not np.allclose(out.state["batch_stats"]["backbone"]["bn1"]["mean"], before)
    # With a zero scale in each last normalisation the blocks start as identities, so
    # only what lies before that scale has no gradient yet.
    silent = {
        jax.tree_util.keystr(path)
        for path, g in jax.tree_util.tree_flatten_with_path(grads)[0]
        if not np.any(g)
    }
    assert silent and all("backbone" in path and "layer" in path for path in silent)


def test_frozen_backbone_sees_each_image_alone(simclr):
    method, params, state, views = simclr
    variables = method.backbone_variables(params, state)
    run = jax.jit(lambda x: BACKBONE.apply(variables, x, False))
    features, alone = run(views[0]), run(views[0][:1])
    assert features.shape == (6, 64) and features.dtype == jnp.float32
    np.testing.assert_allclose(features[:1], alone, rtol=1e-4, atol=1e-5)
