"""MoCo v3: contrast of predictions with the keys of the batch.

The query network (backbone, projector, predictor) is contrasted with a key network
(backbone, projector), in both directions; the negatives are the other keys of the batch,
and there is no queue. The key network is a moving average, updated before its forward, with
a momentum that rises to 1 along half a cosine.

As in the official code each view has a forward of its own. With a ViT the official code
fixes the position embedding and the random projection of the patches:
`models.get("vit_small", heads=12, position="sincos", freeze_patch_embedding=True)`. A rule
keeps weight decay off that projection; without gradient AdamW then leaves it as it is.
With semantic pairs nothing changes but the images. `make_views` draws for each pair which
image gets which of the two different pipelines.

Differences: with AdamW the official code decays biases and normalisations too, here only what
multiplies is decayed, and the class token (never the projection of the patches); the blur is
SimCLR's.

Source: https://arxiv.org/abs/2104.02057; facebookresearch/moco-v3 for sizes and constants.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from sp_jax import losses, optim
from sp_jax.augment import Augment
from sp_jax.methods import base, byol
from sp_jax.models import MLP

# ResNet-50 and 100 epochs; configs/moco_v3_vit.py has the values for a ViT.
OPTIMIZER = byol.OPTIMIZER | {"learning_rate": 0.6}
RULES = (optim.Rule("/patch_embed/", decay=False), *optim.DECAY_KERNELS)
PROBE = base.ProbeRecipe(0.1, 1024, 90, scaled=True)


def views(size: int) -> tuple[Augment, Augment]:
    """BYOL's two views, with torchvision's crops from a fifth of the area."""
    first, second = (
        dataclasses.replace(view, crop_scale=(0.2, 1.0), interpolation="bilinear")
        for view in byol.views(size)
    )
    return first, second


def create(
    backbone: nn.Module,
    run: base.RunSize,
    *,
    temperature: float = 1.0,
    momentum: float = 0.99,
    hidden_dim: int = 4096,
    projection_dim: int = 256,
    projection_layers: int = 2,
    predictor_norm: bool = False,
) -> base.Method:
    """Make MoCo v3 around a backbone.

    Args:
        backbone: a module of `sp_jax.models`.
        run: the run's lengths; the key network's momentum reaches 1 at its end.
        temperature: of the loss: 1.0 for ResNet-50, 0.2 for ViT.
        momentum: of the key network at the start.
        hidden_dim: width of the hidden layers of projector and predictor.
        projection_dim: width of projections and predictions.
        projection_layers: 2 for ResNet-50, 3 for ViT.
        predictor_norm: normalise the predictions over the batch: only for ViT.

    Returns:
        The method; its state is `{"batch_stats", "key", "key_stats"}`.
    """

    def mlp(layers, norm):
        widths, dtype = (hidden_dim,) * (layers - 1) + (projection_dim,), backbone.dtype
        return MLP(
            widths, hidden_bias=False, last_bias=False, last_norm=norm, dtype=dtype
        )

    projector = mlp(projection_layers, "plain")
    predictor = mlp(2, "plain" if predictor_norm else "none")
    network = base.Network(backbone, projector, predictor)
    key_network = base.Network(backbone, projector)
    schedule = optim.cosine(momentum, 1.0, run.total_steps)

    def init(key, views):
        params, stats = base.init_network(network, key, views[0])
        return params, {
            "batch_stats": stats,
            "key": base.without_predictor(params),
            "key_stats": base.without_predictor(stats),
        }

    def loss(params, state, batch, key):
        ((h1, _, q1), (h2, _, q2)), stats = base.forward(
            network, params, state["batch_stats"], batch.views, key, joint=False
        )
        online = jax.lax.stop_gradient(base.without_predictor(params))
        target = optax.incremental_update(
            online, state["key"], 1 - schedule(batch.step)
        )
        ((_, k1), (_, k2)), key_stats = base.forward(
            key_network, target, state["key_stats"], batch.views, joint=False
        )
        value = losses.moco_v3(q1, k2, temperature)
        value += losses.moco_v3(q2, k1, temperature)
        state = {"batch_stats": stats, "key": target, "key_stats": key_stats}
        metrics = {
            "pair_cosine": base.pair_cosine(k1, k2),
            "key_momentum": schedule(batch.step),
        }
        return value, base.Output(state, metrics, jnp.stack([h1, h2], axis=1))

    return base.Method(init, loss, copies=("key",))
