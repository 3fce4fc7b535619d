"""NNCLR: nearest-neighbour contrastive learning of visual representations.

One network makes a projection of each view. In its place the loss takes its nearest neighbour
in a queue of earlier projections, and tells by it which of the batch's predictions is that of
the other view. So the positive is another image, that the network finds by itself.

As in the paper's pseudocode each view has a forward of its own, the mean is over the two
directions, the projections of the first views enter the queue after the loss, and the queue
begins with random directions.

With semantic pairs the neighbour of one image of the pair has to be told from the other
image: two steps of meaning in the place of one, the pair's and the neighbour's. Of each pair
one image enters the queue; which one is drawn in each step. The longer the queue is beside
an epoch, the more often the neighbour is an older view of the pair itself.

Differences, and what the paper leaves open: its text adds the softmax over the neighbours to
the loss, which its pseudocode does not, and which it says not to matter; the views are
SimCLR's, as in lightly, and the LARS is BYOL's. Dense layers before a normalisation have no
bias, which it would take away. Labels are not learnt from: they enter a metric only.

Source: https://arxiv.org/abs/2104.14548 for sizes and constants; we know of no official code.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from sp_jax import losses, optim
from sp_jax.methods import base, byol, simclr
from sp_jax.models import MLP

OPTIMIZER = byol.OPTIMIZER
RULES = optim.DECAY_KERNELS
PROBE = simclr.PROBE
views = simclr.views


def create(
    backbone: nn.Module,
    run: base.RunSize,
    *,
    temperature: float = 0.1,
    queue_size: int = 98304,
    hidden_dim: int = 2048,
    projection_dim: int = 256,
    predictor_dim: int = 4096,
) -> base.Method:
    """Make NNCLR around a backbone.

    Args:
        backbone: a module of `sp_jax.models`.
        run: the run's batch size.
        temperature: of the loss.
        queue_size: number of projections kept, a multiple of the batch size; for ImageNet
            98,304, a thirteenth of an epoch.
        hidden_dim: width of the projector's two hidden layers.
        projection_dim: width of projections and predictions.
        predictor_dim: width of the predictor's hidden layer.

    Returns:
        The method; its state is `{"batch_stats", "queue", "labels", "pointer"}`. Its metric
        `neighbour_accuracy` is the share of labelled pairs whose neighbour has their
        label, and `neighbour_cosine` says how near the neighbours are.

    Raises:
        ValueError: the queue does not fit the batch size.
    """
    base.check_queue(queue_size, run.batch_size)
    widths, dtype = (hidden_dim, hidden_dim, projection_dim), backbone.dtype
    projector = MLP(
        widths, hidden_bias=False, last_bias=False, last_norm="affine", dtype=dtype
    )
    predictor = MLP((predictor_dim, projection_dim), hidden_bias=False, dtype=dtype)
    network = base.Network(backbone, projector, predictor)

    def init(key, views):
        network_key, queue_key = jax.random.split(key)
        params, stats = base.init_network(network, network_key, views[0])
        queue = jax.random.normal(queue_key, (queue_size, projection_dim))
        return params, {
            "batch_stats": stats,
            "queue": losses.l2_normalize(queue),
            "labels": jnp.full(queue_size, -1, jnp.int32),
            "pointer": jnp.int32(0),
        }

    def loss(params, state, batch, key):
        ((h1, z1, p1), (h2, z2, p2)), stats = base.forward(
            network, params, state["batch_stats"], batch.views, key, joint=False
        )
        z1, z2 = jax.lax.stop_gradient((z1, z2))
        queue, place = state["queue"], state["pointer"]
        near1 = losses.nearest_neighbours(z1, queue)
        near2 = losses.nearest_neighbours(z2, queue)
        value = losses.nnclr(p2, queue[near1], temperature)
        value = (value + losses.nnclr(p1, queue[near2], temperature)) / 2
        known = batch.label >= 0
        right = known & (state["labels"][near1] == batch.label)
        metrics = {
            "pair_cosine": base.pair_cosine(z1, z2),
            "neighbour_cosine": base.pair_cosine(z1, queue[near1]),
            "neighbour_accuracy": jnp.sum(right) / jnp.maximum(jnp.sum(known), 1),
        }
        update = jax.lax.dynamic_update_slice
        state = {
            "batch_stats": stats,
            "queue": update(queue, losses.l2_normalize(z1), (place, 0)),
            "labels": update(state["labels"], batch.label, (place,)),
            "pointer": (place + batch.label.shape[0]) % queue_size,
        }
        return value, base.Output(state, metrics, jnp.stack([h1, h2], axis=1))

    return base.Method(init, loss)
