"""PIRL: pretext-invariant representations, with a jigsaw.

A memory keeps one vector an image. The projection of an image, and that of the image cut
into nine shuffled patches, are both attracted to the image's memory and repelled by memories
drawn at random; then the image's projection moves its memory.

The memory is indexed by *image*. In a semantic pair (a, b), `make_views` draws at random which
is the image, say a, and which becomes the jigsaw. Both branches are attracted to the memory of
a, and the image branch moves it: so the jigsaw of b has to be recognised as a. Where a is b
(augmentation pairs) this is the official loss. Over a run both images of a pair play both
parts.

Differences: the official recipe also draws posterise, sharpness, solarise and autocontrast;
here colours are jittered and grayscale only. One set of negatives is drawn for a step, not one
for each row and branch; the constant of NCE is estimated from the image branch and the
negatives, there from the patches. The crop is flipped before it is cut. Sizes are scaled from
224 px: 9 patches of 18 px cut from cells of 24 px, at 64 px. If an image is twice in a batch,
its last projection moves the memory. The running statistics of batch normalisation are those
of the image branch: features are of whole images, and patches of 18 px have quite other ones
(in the official code both branches move them).

Source: https://arxiv.org/abs/1912.01991; facebookresearch/vissl for sizes and constants.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sp_jax import losses, optim
from sp_jax.augment import Augment, Jigsaw
from sp_jax.methods import base
from sp_jax.models import MLP

OPTIMIZER = {
    "name": "sgd",
    "learning_rate": 0.03,
    "weight_decay": 1e-4,
    "momentum": 0.9,
    "warmup_epochs": 0.0,
    "final_factor": 0.001,
    "by_epoch": True,
}
RULES = optim.DECAY_KERNELS
PROBE = base.ProbeRecipe(
    0.01, 256, 28, scaled=True, weight_decay=5e-4, nesterov=True, drops=(8, 16, 24)
)


def views(size: int) -> tuple[Augment, Jigsaw]:
    """An image, and a jigsaw of 3 x 3 patches."""
    image = Augment(
        size=size,
        jitter=1.0,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        blur=0.0,
    )
    cell = round(size * 255 / 224 / 3)
    puzzle = dataclasses.replace(image, size=3 * cell, crop_scale=(0.6, 1.0))
    return image, Jigsaw(puzzle, grid=3, patch=max(1, round(cell * 64 / 85)))


class PIRLNetwork(nn.Module):
    """Backbone, and the heads of the two branches."""

    backbone: nn.Module
    image_head: nn.Module
    patch_head: nn.Module
    jigsaw_head: nn.Module

    def image(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """Map images [N, s, s, 3] to features [N, D] and projections [N, P]."""
        h = self.backbone(x, train)
        return h, self.image_head(h, train)

    def jigsaw(self, patches: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """Map patches [N, 9, p, p, 3] to mean features [N, D] and projections [N, P]."""
        n, count = patches.shape[:2]
        parts = self.backbone(patches.reshape(n * count, *patches.shape[2:]), train)
        z = self.patch_head(parts, train).reshape(n, -1)
        mean = jnp.mean(parts.reshape(n, count, -1), axis=1)
        return mean, self.jigsaw_head(z, train)

    def __call__(self, image: jax.Array, patches: jax.Array, train: bool) -> Any:
        """Both branches, to create all parameters."""
        return self.image(image, train), self.jigsaw(patches, train)


def create(
    backbone: nn.Module,
    run: base.RunSize,
    *,
    loss: str = "nce",
    temperature: float = 0.07,
    num_negatives: int = 32000,
    memory_momentum: float = 0.5,
    hidden_dim: int = 0,
    projection_dim: int = 128,
    projection_norm: bool = False,
) -> base.Method:
    """Make PIRL around a backbone.

    Args:
        backbone: a module of `sp_jax.models`.
        run: the run's number of images.
        loss: "nce" (the paper's), or "info_nce": the loss of the official project's
            variant with MLP heads, temperature 0.1 and hidden_dim 2048 (which also has
            the colours and the blur of SimCLR).
        temperature: of the loss.
        num_negatives: memories drawn for each step, shared by the batch.
        memory_momentum: share of an old memory that is kept.
        hidden_dim: width of a hidden layer in the heads of image and patches; 0 for none.
        projection_dim: width of the projections and of the memory.
        projection_norm: normalise the projections over the batch, without scale and bias.
            The official heads do not; without it projections stay in a narrow cone for
            longer than a short run.

    Returns:
        The method; its state is `{"batch_stats", "memory", "normalizer"}`.

    Raises:
        ValueError: there is no such loss.
    """
    if loss not in ("nce", "info_nce"):
        raise ValueError(f"PIRL has no loss {loss!r}: use 'nce' or 'info_nce'.")
    hidden = (hidden_dim,) if hidden_dim else ()

    def head(*widths, norm="none"):
        widths = (*widths, projection_dim)
        return MLP(widths, hidden_norm=False, last_norm=norm, dtype=backbone.dtype)

    norm = "plain" if projection_norm else "none"
    heads = head(*hidden, norm=norm), head(*hidden), head(norm=norm)
    network = PIRLNetwork(backbone, *heads)

    def init(key, views):
        network_key, memory_key = jax.random.split(key)
        params, stats = base.init_network(network, network_key, *views)
        shape = (run.num_images, projection_dim)
        memory = jax.random.uniform(memory_key, shape, minval=-1.0)
        return params, {
            "batch_stats": stats,
            "memory": losses.l2_normalize(memory),
            "normalizer": jnp.float32(0.0),
        }

    def loss_fn(params, state, batch, key):
        drop_key, negative_key = jax.random.split(key)

        def branch(number, method):
            key = jax.random.fold_in(drop_key, number)
            stats, view = state["batch_stats"], batch.views[number]
            return base.apply(network, params, stats, view, key, method)

        (h1, v1), stats = branch(0, PIRLNetwork.image)
        (h2, v2), _ = branch(1, PIRLNetwork.jigsaw)
        memory, image = state["memory"], batch.index[:, 0]
        drawn = jax.random.randint(negative_key, (num_negatives,), 0, run.num_images)
        positives, negatives = memories = memory[image], memory[drawn]
        normalizer = state["normalizer"]
        if loss == "nce":
            # Estimated once, from the first batch.
            estimate = functools.partial(
                losses.nce_normalizer, v1, negatives, run.num_images, temperature
            )
            normalizer = jax.lax.cond(batch.step == 0, estimate, lambda: normalizer)
            terms = [
                losses.nce(v, *memories, normalizer, run.num_images, temperature)
                for v in (v1, v2)
            ]
        else:
            terms = [
                losses.memory_info_nce(v, *memories, temperature) for v in (v1, v2)
            ]
        new_memory = losses.l2_normalize(jax.lax.stop_gradient(v1))
        moved = memory_momentum * positives + (1 - memory_momentum) * new_memory
        state = {
            "batch_stats": stats,
            "memory": base.write_rows(memory, image, losses.l2_normalize(moved)),
            "normalizer": normalizer,
        }
        metrics = {
            "pair_cosine": base.pair_cosine(v1, v2),
            "memory_cosine": base.pair_cosine(v1, positives),
        }
        features = jnp.stack([h1, h2], axis=1)
        return (terms[0] + terms[1]) / 2, base.Output(state, metrics, features)

    return base.Method(init, loss_fn)
