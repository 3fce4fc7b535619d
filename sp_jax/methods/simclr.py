"""SimCLR: a simple framework for contrastive learning of visual representations.

Two views of a pair go through one network (backbone and projector) in one forward pass,
so batch normalisation sees both; NT-Xent pulls the two projections together and pushes
the other 2N - 2 of the batch away.

With semantic pairs nothing changes but the images. Some of the negatives then belong to
the anchor's class, as they do with augmentation pairs: with 187 classes and 256 pairs,
about 2.7 of 510.

Source: https://arxiv.org/abs/2002.05709; the official TensorFlow 2 code for the sizes.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from sp_jax.augment import Augment
from sp_jax.losses import l2_normalize, nt_xent
from sp_jax.methods.base import Method, Output
from sp_jax.models import SimCLRHead

# The recipe of the official code for ImageNet with linear scaling of the rate.
OPTIMIZER = {
    "name": "lars",
    "learning_rate": 0.3,
    "weight_decay": 1e-4,
    "momentum": 0.9,
    "warmup_epochs": 10.0,
}


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


class Network(nn.Module):
    """Backbone and projector."""

    backbone: nn.Module
    projector: nn.Module

    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """Map images [N, s, s, 3] to features [N, D] and projections [N, P]."""
        h = self.backbone(x, train)
        return h, self.projector(h, train)


def create(
    backbone: nn.Module,
    *,
    temperature: float = 0.1,
    projection_dim: int = 128,
    projection_layers: int = 3,
) -> Method:
    """Make SimCLR around a backbone.

    Args:
        backbone: a module of `sp_jax.models`.
        temperature: of NT-Xent.
        projection_dim: width of the projections.
        projection_layers: dense layers of the projector.

    Returns:
        The method; its state is `{"batch_stats": ...}`.
    """
    head = SimCLRHead(projection_dim, projection_layers, dtype=backbone.dtype)
    network = Network(backbone, head)

    def init(key, views):
        variables = network.init(key, views[0], train=False)
        return variables["params"], {"batch_stats": variables["batch_stats"]}

    def loss(params, state, views, step, key):
        del step, key  # neither the loss nor its network is random or scheduled
        # Views interleaved, [N, V] -> [N * V]: each device keeps its own rows.
        x = jnp.stack(views, axis=1)
        n, v = x.shape[:2]
        (h, z), state = network.apply(
            {"params": params, **state},
            x.reshape(n * v, *x.shape[2:]),
            train=True,
            mutable=["batch_stats"],
        )
        z = z.reshape(n, v, -1)
        metrics = {"pair_cosine": _pair_cosine(z[:, 0], z[:, 1])}
        return nt_xent(z[:, 0], z[:, 1], temperature), Output(
            state, metrics, h.reshape(n, v, -1)
        )

    def update(state, params, step, total_steps):
        del params, step, total_steps
        return state

    def features(params, state, images):
        variables = {"params": params, **state}
        return network.apply(
            variables, images, method=lambda net, x: net.backbone(x, False)
        )

    return Method(init, loss, update, features)


def _pair_cosine(z1: jax.Array, z2: jax.Array) -> jax.Array:
    return jnp.mean(jnp.sum(l2_normalize(z1) * l2_normalize(z2), axis=-1))
