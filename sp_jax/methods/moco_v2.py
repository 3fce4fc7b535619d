"""MoCo v2: momentum contrast with a queue.

The query network sees the first view, the key network the second. The key is the positive;
the negatives are the keys of earlier batches, kept in a queue. The key network is a moving
average of the query network, updated before its forward, as in the official code. One
direction only.

Batch normalisation leaks: a query and its key that are normalised together share
statistics, and the network can tell by them which key is its own. The official code shuffles
the keys over 8 GPUs, each of which normalises its 32 images by itself. Here the batch is
split into `bn_groups` groups that are normalised by themselves, queries in order and keys
shuffled, on any number of devices. The running statistics move by the mean of the groups
(the official checkpoint holds those of the first GPU).

With semantic pairs the query is one image of the pair and the key the other, drawn
anew in each step. The leak is the same.

Difference: the blur is SimCLR's, as in SimSiam.

Source: https://arxiv.org/abs/2003.04297, https://arxiv.org/abs/1911.05722;
facebookresearch/moco for sizes and constants.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from sp_jax import losses, optim
from sp_jax.methods import base, simsiam
from sp_jax.models import MLP

OPTIMIZER = simsiam.OPTIMIZER | {"learning_rate": 0.03}
RULES = optim.DECAY_ALL
PROBE = base.ProbeRecipe(30.0, 256, 100, drops=(60, 80))
views = simsiam.views  # SimSiam took them over


def create(
    backbone: nn.Module,
    run: base.RunSize,
    *,
    temperature: float = 0.2,
    momentum: float = 0.999,
    queue_size: int = 65536,
    hidden_dim: int = 2048,
    projection_dim: int = 128,
    bn_groups: int = 8,
) -> base.Method:
    """Make MoCo v2 around a backbone.

    Args:
        backbone: a module of `sp_jax.models`.
        run: the run's batch size.
        temperature: of the loss.
        momentum: of the key network.
        queue_size: number of keys kept, a multiple of the batch size. The longer it is
            beside an epoch, the more often it holds an older key of the query's own pair.
        hidden_dim: width of the projector's hidden layer.
        projection_dim: width of the projections.
        bn_groups: groups of a batch that are normalised by themselves.

    Returns:
        The method; its state is `{"batch_stats", "key", "key_stats", "queue",
        "pointer"}`.

    Raises:
        ValueError: the queue or the groups do not fit the batch size, or the backbone
            goes through the batch in chunks, which would cut the groups.
    """
    base.check_queue(queue_size, run.batch_size)
    if run.batch_size % bn_groups:
        raise ValueError(
            f"bn_groups {bn_groups} must divide the batch size {run.batch_size}."
        )
    if backbone.chunked:
        raise ValueError(
            "moco_v2 normalises bn_groups of a batch by themselves, and chunks would cut "
            "them: leave chunks out, and use remat."
        )
    widths = (hidden_dim, projection_dim)
    projector = MLP(widths, hidden_norm=False, dtype=backbone.dtype)
    network = base.Network(backbone, projector)

    def init(key, views):
        network_key, queue_key = jax.random.split(key)
        params, stats = base.init_network(network, network_key, views[0])
        queue = jax.random.normal(queue_key, (queue_size, projection_dim))
        return params, {
            "batch_stats": stats,
            "key": params,
            "key_stats": stats,
            "queue": losses.l2_normalize(queue),
            "pointer": jnp.int32(0),
        }

    def by_group(params, stats, images, drop_path=None):
        """Train-mode forward in which each group has its own batch statistics."""
        n = images.shape[0]
        x = images.reshape(bn_groups, n // bn_groups, *images.shape[1:])
        keys = None if drop_path is None else jax.random.split(drop_path, bn_groups)
        one = functools.partial(base.apply, network, params, stats)
        outputs, new = jax.vmap(one)(x, keys)
        outputs = jax.tree.map(lambda y: y.reshape(n, *y.shape[2:]), outputs)
        return outputs, jax.tree.map(lambda y: jnp.mean(y, axis=0), new)

    def loss(params, state, batch, key):
        drop_key, shuffle_key = jax.random.split(key)
        first, second = batch.views
        (h1, q), stats = by_group(params, state["batch_stats"], first, drop_key)
        target = optax.incremental_update(
            jax.lax.stop_gradient(params), state["key"], 1 - momentum
        )
        order = jax.random.permutation(shuffle_key, len(second))
        (h2, k), key_stats = by_group(target, state["key_stats"], second[order])
        back = jnp.argsort(order)
        h2, k = jax.lax.stop_gradient((h2[back], losses.l2_normalize(k[back])))
        value = losses.moco_v2(q, k, state["queue"], temperature)
        place = state["pointer"]
        state = {
            "batch_stats": stats,
            "key": target,
            "key_stats": key_stats,
            "queue": jax.lax.dynamic_update_slice(state["queue"], k, (place, 0)),
            "pointer": (place + k.shape[0]) % queue_size,
        }
        metrics = {"pair_cosine": base.pair_cosine(q, k)}
        return value, base.Output(state, metrics, jnp.stack([h1, h2], axis=1))

    return base.Method(init, loss, copies=("key",))
