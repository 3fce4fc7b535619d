"""SimCLR: a simple framework for contrastive learning of visual representations.

Two views of a pair go through one network (backbone and projector) in one forward pass,
so batch normalisation sees both; NT-Xent pulls the two projections together and pushes
the other 2N - 2 of the batch away.

With semantic pairs nothing changes but the images. Some of the negatives then belong to
the anchor's class, as they do with augmentation pairs: with 187 classes and 256 pairs,
about 2.7 of 510.

Differences: the loss is the mean over the 2N views, half of the official value, so that biases
and scales, which LARS does not adapt, move half as fast as officially; and images are
normalised by mean and standard deviation, where the official code has values from 0 to 1.

Source: https://arxiv.org/abs/2002.05709; the official TensorFlow 2 code for the sizes.
"""

import flax.linen as nn

from sp_jax.augment import Augment
from sp_jax.losses import nt_xent
from sp_jax.methods import base
from sp_jax.models import SimCLRHead
from sp_jax.optim import DECAY_KERNELS

# The official recipe for ImageNet with linear scaling of the learning rate.
OPTIMIZER = {
    "name": "lars_inside",
    "learning_rate": 0.3,
    "weight_decay": 1e-4,
    "momentum": 0.9,
    "warmup_epochs": 10.0,
}
RULES = DECAY_KERNELS
PROBE = base.ProbeRecipe(0.1, 4096, 90, scaled=True, nesterov=True, every_step=True)


def views(size: int) -> tuple[Augment, Augment]:
    """The two default views: symmetric, strength 1, blur with a kernel of size // 10."""
    return (Augment(size=size, interpolation="bicubic"),) * 2


def create(
    backbone: nn.Module,
    run: base.RunSize,
    *,
    temperature: float = 0.1,
    projection_dim: int = 128,
    projection_layers: int = 3,
) -> base.Method:
    """Make SimCLR around a backbone.

    Args:
        backbone: a module of `sp_jax.models`.
        run: the run's lengths; SimCLR does not depend on them.
        temperature: of NT-Xent.
        projection_dim: width of the projections.
        projection_layers: dense layers of the projector.

    Returns:
        The method; its state is `{"batch_stats": ...}`.
    """
    head = SimCLRHead(projection_dim, projection_layers, dtype=backbone.dtype)

    def loss(batch, one, two):
        (_, z1), (_, z2) = one, two
        return nt_xent(z1, z2, temperature), {}

    return base.siamese(base.Network(backbone, head), loss, joint=True)
