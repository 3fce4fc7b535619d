"""SimCLR: a simple framework for contrastive learning of visual representations.

Two views of a pair go through one network (backbone and projector) in one forward pass,
so batch normalisation sees both; NT-Xent pulls the two projections together and pushes
the other 2N - 2 of the batch away.

With semantic pairs nothing changes but the images. Some of the negatives then belong to
the anchor's class, as they do with augmentation pairs: with 187 classes and 256 pairs,
about 2.7 of 510.

Differences: the loss is the mean over the 2N views, half of the official value, so that biases
and scales, which LARS does not adapt, move at half of the official rate; and images are
normalised by mean and standard deviation, where the official code has values from 0 to 1.

Source: https://arxiv.org/abs/2002.05709; the official TensorFlow 2 code for the sizes.
"""

import flax.linen as nn
import jax.numpy as jnp

from sp_jax.augment import Augment
from sp_jax.losses import nt_xent
from sp_jax.methods import base
from sp_jax.methods.probe import ProbeRecipe
from sp_jax.models import SimCLRHead
from sp_jax.optim import DECAY_KERNELS

# The recipe of the official code for ImageNet with linear scaling of the rate.
OPTIMIZER = {
    "name": "lars_inside",
    "learning_rate": 0.3,
    "weight_decay": 1e-4,
    "momentum": 0.9,
    "warmup_epochs": 10.0,
}
RULES = DECAY_KERNELS
PROBE = ProbeRecipe(0.1, 4096, 90, scaled=True, nesterov=True, every_step=True)


def views(size: int) -> tuple[Augment, Augment]:
    """The two default views: symmetric, strength 1, blur with a kernel of size // 10."""
    view = Augment(
        size=size,
        crop_scale=(0.08, 1.0),
        interpolation="bicubic",
        flip=0.5,
        jitter=0.8,
        brightness=0.8,
        contrast=0.8,
        saturation=0.8,
        hue=0.2,
        grayscale=0.2,
        blur=0.5,
        solarize=0.0,
    )
    return view, view


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
    network = base.Network(backbone, head)

    def init(key, views):
        params, stats = base.init_network(network, key, views[0])
        return params, {"batch_stats": stats}

    def loss(params, state, batch, key):
        ((h1, z1), (h2, z2)), stats = base.forward(
            network,
            params,
            state["batch_stats"],
            batch.views,
            joint=True,
            drop_path=key,
        )
        metrics = {"pair_cosine": base.pair_cosine(z1, z2)}
        features = jnp.stack([h1, h2], axis=1)
        output = base.Output({"batch_stats": stats}, metrics, features)
        return nt_xent(z1, z2, temperature), output

    return base.Method(init, loss)
