"""Barlow Twins: self-supervised learning via redundancy reduction.

The cross-correlation of the projections of two views, over the batch, is pulled towards the
identity: each dimension agrees between the views, and no two dimensions say the same.

As in the official code each view has a forward of its own, and biases and normalisations
have a learning rate of their own (0.0048 where the weights have 0.2). It was found with
gradients averaged over 16 to 32 GPUs, each of which saw its share of a summed correlation;
here the gradient is that of the global loss.
With semantic pairs nothing changes but the images.

Difference: the blur is SimCLR's, as in VICReg.

Source: https://arxiv.org/abs/2103.03230; facebookresearch/barlowtwins for sizes and
constants.
"""

import flax.linen as nn

from sp_jax import losses
from sp_jax.methods import base, byol
from sp_jax.models import MLP
from sp_jax.optim import Rule

OPTIMIZER = byol.OPTIMIZER | {"learning_rate": 0.2, "final_factor": 0.001}
RULES = (
    Rule(r"/(kernel|cls_token|pos_embed)$"),
    Rule(r"/(bias|scale)$", decay=False, adapt=False, factor=0.0048 / 0.2),
)
PROBE = base.ProbeRecipe(0.3, 256, 100, weight_decay=1e-6)
views = byol.views


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
        off_diagonal_weight: lambda of the loss; about 1 / projection_dim if it is narrow.
        projection_dim: width of the projector's layers.
        projection_layers: dense layers of the projector.

    Returns:
        The method; its state is `{"batch_stats": ...}`.
    """
    widths = (projection_dim,) * projection_layers
    projector = MLP(widths, hidden_bias=False, last_bias=False, dtype=backbone.dtype)

    def loss(batch, one, two):
        (_, z1), (_, z2) = one, two
        return losses.barlow_twins(z1, z2, off_diagonal_weight), {}

    return base.siamese(base.Network(backbone, projector), loss, joint=False)
