"""Barlow Twins: self-supervised learning via redundancy reduction.

The cross-correlation of the projections of two views, over the batch, is pulled towards the
identity: each dimension agrees between the views, and no two dimensions say the same.

As in the official code each view has a forward of its own, and biases and normalisations
learn at a rate of their own (0.0048 where the weights have 0.2). That rate was found with
gradients averaged over 16 to 32 GPUs, each of which saw its share of a summed correlation;
here the gradient is that of the global loss.
With semantic pairs nothing changes but the images.

Difference: the blur is SimCLR's, as in VICReg.

Source: https://arxiv.org/abs/2103.03230; facebookresearch/barlowtwins for sizes and
constants.
"""

import flax.linen as nn
import jax.numpy as jnp

from sp_jax import losses
from sp_jax.augment import Augment
from sp_jax.methods import base, byol
from sp_jax.methods.probe import ProbeRecipe
from sp_jax.models import MLP
from sp_jax.optim import Rule

OPTIMIZER = {
    "name": "lars",
    "learning_rate": 0.2,
    "weight_decay": 1e-6,
    "momentum": 0.9,
    "warmup_epochs": 10.0,
    "final_factor": 0.001,
}
RULES = (
    Rule(r"/(kernel|cls_token|pos_embed)$"),
    Rule(r"/(bias|scale)$", decay=False, adapt=False, factor=0.0048 / 0.2),
)
PROBE = ProbeRecipe(0.3, 256, 100, weight_decay=1e-6)


def views(size: int) -> tuple[Augment, Augment]:
    """The two views of BYOL."""
    return byol.views(size)


def create(
    backbone: nn.Module,
    run: base.RunSize,
    *,
    off_diagonal_weight: float = 0.0051,
    projection_dim: int = 8192,
    projection_layers: int = 3,
) -> base.Method:
    """Make Barlow Twins around a backbone.

    Args:
        backbone: a module of `sp_jax.models`.
        run: the run's lengths; Barlow Twins does not depend on them.
        off_diagonal_weight: lambda of the loss. A narrow projection wants a larger one:
            about 1 / projection_dim.
        projection_dim: width of the projector's layers.
        projection_layers: dense layers of the projector.

    Returns:
        The method; its state is `{"batch_stats": ...}`.
    """
    projector = MLP(
        (projection_dim,) * projection_layers,
        hidden_bias=False,
        last_bias=False,
        dtype=backbone.dtype,
    )
    network = base.Network(backbone, projector)

    def init(key, views):
        params, stats = base.init_network(network, key, views[0])
        return params, {"batch_stats": stats}

    def loss(params, state, batch, key):
        ((h1, z1), (h2, z2)), stats = base.forward(
            network,
            params,
            state["batch_stats"],
            batch.views,
            joint=False,
            drop_path=key,
        )
        value = losses.barlow_twins(z1, z2, off_diagonal_weight)
        metrics = {"pair_cosine": base.pair_cosine(z1, z2)}
        return value, base.Output(
            {"batch_stats": stats}, metrics, jnp.stack([h1, h2], axis=1)
        )

    return base.Method(init, loss)
