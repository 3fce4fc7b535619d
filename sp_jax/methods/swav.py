"""SwAV: unsupervised learning by contrasting cluster assignments.

The projection of a view is compared with prototypes. The scores of each of the two global
views become codes, by Sinkhorn-Knopp, that use all prototypes alike; every other view of the
pair has to predict them. Local crops predict only.

As in the official code: prototypes have length 1 (here restored after each step, there
before each forward, which is the same), do not move in the first epoch, and normalisation
and biases are decayed and adapted like everything; the backbone normalises views of one size
together, and the projector all views; from epoch `queue_starts` on the projections of earlier
batches join the codes, once the queue is full.
With semantic pairs the global views are of the two images, and so are the local crops, in
turn. The codes of a global view are predicted from every other view: half of the local crops
that do it are of its own image.

Differences: the local crops have half the size of the global ones (96 of 224 there); the blur
has a kernel of a tenth of the view and sigma 0.1 to 2 in pixels, which is stronger on a small
image; one queue for the global batch, not one per GPU.

Source: https://arxiv.org/abs/2006.09882; facebookresearch/swav for sizes and constants.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from sp_jax import losses, optim
from sp_jax.augment import Augment
from sp_jax.methods import base
from sp_jax.models import MLP
from sp_jax.models.heads import torch_linear

# The official recipe for a batch of 256.
OPTIMIZER = {
    "name": "larc",
    "learning_rate": 0.6,
    "weight_decay": 1e-6,
    "momentum": 0.9,
    "warmup_epochs": 0.0,
    "final_factor": 0.001,
}
RULES = (optim.Rule("^prototypes/", frozen_epochs=1.0), *optim.DECAY_ALL)
PROBE = base.ProbeRecipe(0.3, 256, 100, weight_decay=1e-6)


def views(size: int, local_crops: int = 6) -> tuple[Augment, ...]:
    """Two global views with SimCLR's colours, and local crops of half the size."""
    std = 0.228, 0.224, 0.225  # so in the official code
    large = Augment(size=size, crop_scale=(0.14, 1.0), std=std)
    small = dataclasses.replace(large, size=size // 2, crop_scale=(0.05, 0.14))
    return (large,) * 2 + (small,) * local_crops


class SwAVNetwork(nn.Module):
    """Backbone, projector, and one prototype a column of a kernel."""

    backbone: nn.Module
    projector: nn.Module
    prototypes: nn.Module

    def __call__(self, x: base.Images, train: bool) -> tuple[jax.Array, ...]:
        """Map images to features, unit projections and scores of the prototypes."""
        h = base.features_by_size(self.backbone, x, train)
        z = losses.l2_normalize(self.projector(h, train))
        return h, z, self.prototypes(z)


def _on_the_sphere(params):
    kernel = losses.l2_normalize(params["prototypes"]["kernel"].T).T
    return {**params, "prototypes": {"kernel": kernel}}


def create(
    backbone: nn.Module,
    run: base.RunSize,
    *,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    sinkhorn_iterations: int = 3,
    num_prototypes: int = 3000,
    queue_size: int = 3840,
    queue_starts: float = 15.0,
    hidden_dim: int = 2048,
    projection_dim: int = 128,
) -> base.Method:
    """Make SwAV around a backbone.

    Args:
        backbone: a module of `sp_jax.models`.
        run: the run's batch size and steps an epoch.
        temperature: of the predictions.
        epsilon: sharpness of the codes. If the loss stays at ln(num_prototypes), the
            authors advise a lower epsilon, more iterations, fewer prototypes.
        sinkhorn_iterations: of the codes.
        num_prototypes: number of prototypes.
        queue_size: projections of each global view, a multiple of the batch; 0: none.
        queue_starts: epoch in which the queue begins to fill.
        hidden_dim: width of the projector's hidden layer.
        projection_dim: width of the projections.

    Returns:
        The method; its state is `{"batch_stats"}` and, with a queue, `"queue"`.

    Raises:
        ValueError: the queue does not fit the batch size.
    """
    if queue_size:
        base.check_queue(queue_size, run.batch_size)
    highest = jax.lax.Precision.HIGHEST  # the codes divide by a small epsilon
    projector = MLP((hidden_dim, projection_dim), dtype=backbone.dtype)
    prototypes = nn.Dense(
        num_prototypes, use_bias=False, kernel_init=torch_linear, precision=highest
    )
    network = SwAVNetwork(backbone, projector, prototypes)
    first_queue_step = round(queue_starts * run.steps_per_epoch)

    def init(key, views):
        params, stats = base.init_network(network, key, views[0])
        state = {"batch_stats": stats}
        if queue_size:
            state["queue"] = jnp.zeros((2, queue_size, projection_dim))
        return _on_the_sphere(params), state

    def codes_of(scores, queue, params):
        def alone(scores):
            return losses.sinkhorn(scores, epsilon, sinkhorn_iterations)

        def with_queue(scores):
            prototypes = params["prototypes"]["kernel"]
            earlier = jnp.matmul(queue, prototypes, precision=highest)
            return alone(jnp.concatenate([earlier, scores]))[-scores.shape[0] :]

        if queue is None:
            return alone(scores)
        return jax.lax.cond(jnp.any(queue[-1] != 0), with_queue, alone, scores)

    def loss(params, state, batch, key):
        outputs, stats = base.forward(
            network, params, state["batch_stats"], batch.views, key, joint=True
        )
        terms, codes, queues = [], [], []
        for g in range(2):
            _, z, scores = jax.lax.stop_gradient(outputs[g])
            queue = state["queue"][g] if queue_size else None
            codes.append(codes_of(scores, queue, jax.lax.stop_gradient(params)))
            if queue is not None:
                moved = jnp.concatenate([z, queue[: -z.shape[0]]])
                queues.append(jnp.where(batch.step >= first_queue_step, moved, queue))
            others = [scores for v, (_, _, scores) in enumerate(outputs) if v != g]
            terms += [losses.swav(scores, codes[g], temperature) for scores in others]
        state = {"batch_stats": stats}
        if queue_size:
            state["queue"] = jnp.stack(queues)
        (h1, z1, _), (h2, z2, _) = outputs[:2]
        used = jnp.zeros(num_prototypes).at[jnp.argmax(codes[0], axis=1)].set(1.0)
        cosine = base.pair_cosine(z1, z2)
        metrics = {"pair_cosine": cosine, "used_prototypes": used.sum()}
        value = sum(terms) / len(terms)
        return value, base.Output(state, metrics, jnp.stack([h1, h2], axis=1))

    def update(params, state, step):
        return _on_the_sphere(params), state

    return base.Method(init, loss, update)
