"""VICReg: variance-invariance-covariance regularisation.

Two projections are pulled together; a hinge keeps the standard deviation of each dimension
above 1, and the covariances of different dimensions are pulled to 0, in each view by itself.

As in the official code each view has a forward of its own.
With semantic pairs nothing changes but the images.

Difference: the blur is SimCLR's, with a kernel of a tenth of the view; the official one is
PIL's. Its sigma of 0.1 to 2 pixels is stronger on an image of 64 px than on one of 224.

Source: https://arxiv.org/abs/2105.04906; facebookresearch/vicreg for sizes and constants.
"""

import flax.linen as nn
import jax.numpy as jnp

from sp_jax import losses, optim
from sp_jax.methods import base, byol
from sp_jax.models import MLP

# The learning rate is the authors' for 100 epochs at batch 256 (appendix C.4).
OPTIMIZER = byol.OPTIMIZER | {"learning_rate": 0.5, "final_factor": 0.001}
RULES = optim.DECAY_KERNELS
PROBE = base.ProbeRecipe(0.02, 256, 100, weight_decay=1e-6)
views = byol.views


def create(
    backbone: nn.Module,
    run: base.RunSize,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    projection_dim: int = 8192,
    projection_layers: int = 3,
) -> base.Method:
    """Make VICReg around a backbone.

    Args:
        backbone: a module of `sp_jax.models`.
        run: the run's lengths; VICReg does not depend on them.
        invariance: weight of the distance between the views.
        variance: weight of the hinge on the standard deviations.
        covariance: weight of the covariances.
        projection_dim: width of the expander's layers.
        projection_layers: dense layers of the expander.

    Returns:
        The method; its state is `{"batch_stats": ...}`. Its metric `projection_std` is
        the mean standard deviation of a dimension, which the hinge pulls to 1.
    """
    widths = (projection_dim,) * projection_layers
    projector = MLP(widths, last_bias=False, dtype=backbone.dtype)

    def loss(batch, one, two):
        (_, z1), (_, z2) = one, two
        metrics = {"projection_std": jnp.mean(jnp.std(z1, axis=0))}
        return losses.vicreg(z1, z2, invariance, variance, covariance), metrics

    return base.siamese(base.Network(backbone, projector), loss, joint=False)
