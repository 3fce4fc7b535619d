"""BYOL: bootstrap your own latent.

An online network (backbone, projector, predictor) predicts the projection that a target
network makes of the other view. The target is a moving average of the online network, made
after each step, with a momentum that rises to 1 along half a cosine. There are no
negatives.

As in the official code each view has a forward of its own, the target starts from another
random key than the online network, and normalises by batch statistics of its own.
With semantic pairs nothing changes but the images. `make_views` draws for each pair which
image gets which of the two different pipelines.

Differences: no classifier is trained beside it, since probes are made by `eval/`; the
brightness of a view is multiplied as in torchvision, where the official code adds to it; the
layers of the heads are drawn as PyTorch draws them. `projection_norm` is not official.

Source: https://arxiv.org/abs/2006.07733; deepmind-research/byol for sizes and constants.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from sp_jax import losses, optim
from sp_jax.augment import Augment
from sp_jax.methods import base
from sp_jax.models import MLP

# 300 epochs in the official code; for a batch of 256.
OPTIMIZER = {
    "name": "lars",
    "learning_rate": 0.3,
    "weight_decay": 1e-6,
    "momentum": 0.9,
    "warmup_epochs": 10.0,
}
RULES = optim.DECAY_KERNELS
PROBE = base.ProbeRecipe(0.2, 1024, 80, scaled=True, nesterov=True, every_step=True)


def views(size: int) -> tuple[Augment, Augment]:
    """Two different views: one always blurred, one rarely blurred and sometimes solarised."""
    first = Augment(
        size=size,
        interpolation="bicubic",
        brightness=0.4,
        contrast=0.4,
        saturation=0.2,
        hue=0.1,
        blur=1.0,
    )
    return first, dataclasses.replace(first, blur=0.1, solarize=0.2)


def create(
    backbone: nn.Module,
    run: base.RunSize,
    *,
    momentum: float = 0.99,
    hidden_dim: int = 4096,
    projection_dim: int = 256,
    projection_norm: bool = False,
) -> base.Method:
    """Make BYOL around a backbone.

    Args:
        backbone: a module of `sp_jax.models`.
        run: the run's lengths; the target's momentum reaches 1 at its end.
        momentum: of the target at the start. The official code has 0.97 for 40 epochs,
            0.99 for 100 and 300, 0.996 for 1000.
        hidden_dim: width of the hidden layers of projector and predictor.
        projection_dim: width of projections and predictions.
        projection_norm: normalise the projections over the batch, without scale and bias,
            as SimSiam and MoCo v3 do. Not official. Without it the projections of a young
            network lie in a narrow cone, and in a short run stay there.

    Returns:
        The method; its state is `{"batch_stats", "target", "target_stats"}`.
    """
    widths = (hidden_dim, projection_dim)

    def mlp(last_norm="none"):
        return MLP(widths, last_bias=False, last_norm=last_norm, dtype=backbone.dtype)

    projector = mlp("plain" if projection_norm else "none")
    network = base.Network(backbone, projector, mlp())
    target_network = base.Network(backbone, projector)
    schedule = optim.cosine(momentum, 1.0, run.total_steps)

    def init(key, views):
        online_key, target_key = jax.random.split(key)
        params, stats = base.init_network(network, online_key, views[0])
        target, target_stats = base.init_network(target_network, target_key, views[0])
        own = {"target": target, "target_stats": target_stats}
        return params, {"batch_stats": stats, **own}

    def loss(params, state, batch, key):
        ((h1, _, p1), (h2, _, p2)), stats = base.forward(
            network, params, state["batch_stats"], batch.views, key, joint=False
        )
        target, target_stats = state["target"], state["target_stats"]
        ((_, t1), (_, t2)), target_stats = base.forward(
            target_network, target, target_stats, batch.views, joint=False
        )
        value = losses.byol(p1, t2) + losses.byol(p2, t1)
        state = {**state, "batch_stats": stats, "target_stats": target_stats}
        metrics = {
            "pair_cosine": base.pair_cosine(t1, t2),
            "target_momentum": schedule(batch.step),
        }
        return value, base.Output(state, metrics, jnp.stack([h1, h2], axis=1))

    def update(params, state, step):
        online = base.without_predictor(params)
        target = optax.incremental_update(online, state["target"], 1 - schedule(step))
        return params, {**state, "target": target}

    return base.Method(init, loss, update, copies=("target",))
