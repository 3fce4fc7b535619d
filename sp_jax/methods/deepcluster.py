"""DeepCluster-v2: deep clustering, once an epoch, with several heads.

Two banks, one for each global view, keep the projection of every image that came in that
view, from the last time it was seen. At the start of each epoch spherical k-means clusters
the banks, once for each head (heads take turns with the banks); the centroids become the
prototypes of the epoch and the clusters the targets. Every view has to tell its target.
Prototypes are never trained. The banks are first filled by the untrained network, in one epoch
before the first step.

The bank is indexed by *image*. With semantic pairs the target of a view is the cluster of the
*other* image of its pair: that is what makes them a positive pair. Where both are one image
(augmentation pairs) this is the official loss. Each step draws which image of a pair comes as
which view. An image that a bank has not seen yet has no cluster, and views whose target it
would be take no part.

Differences: two global views by default, with crops from 0.08 (the official run without local
crops; its default has six); clustering runs on the accelerator inside the compiled step;
the sums of k-means are products and not scattered, so that they are reproducible; local crops
have half the size of the global ones; the banks are filled by one forward of both views, not
one a view; the warm-up starts at 0, not at a sixteenth of the peak; the blur as in SwAV.

Source: https://arxiv.org/abs/2006.09882, appendix; facebookresearch/swav
(main_deepclusterv2.py) for sizes and constants.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from sp_jax import losses, optim
from sp_jax.augment import Augment
from sp_jax.methods import base, swav
from sp_jax.models import MLP

OPTIMIZER = swav.OPTIMIZER | {"learning_rate": 0.3, "warmup_epochs": 10.0}
RULES = optim.DECAY_ALL
PROBE = swav.PROBE


def views(size: int, local_crops: int = 0) -> tuple[Augment, ...]:
    """The views of SwAV; without local crops, two global views with smaller crops."""
    views = swav.views(size, local_crops)
    if local_crops:
        return views
    return tuple(dataclasses.replace(v, crop_scale=(0.08, 1.0)) for v in views)


def create(
    backbone: nn.Module,
    run: base.RunSize,
    *,
    temperature: float = 0.1,
    num_clusters: int = 3000,
    num_heads: int = 3,
    kmeans_iterations: int = 10,
    hidden_dim: int = 2048,
    projection_dim: int = 128,
) -> base.Method:
    """Make DeepCluster-v2 around a backbone.

    Args:
        backbone: a module of `sp_jax.models`.
        run: the run's steps an epoch and number of images.
        temperature: of the predictions.
        num_clusters: clusters of each head; far fewer than the images that come in each
            global view, since a first centroid is one of them.
        num_heads: clusterings that are learnt at a time.
        kmeans_iterations: of each clustering.
        hidden_dim: width of the projector's hidden layer.
        projection_dim: width of the projections.

    Returns:
        The method; its state is `{"batch_stats", "bank", "prototypes", "clusters"}`.

    Raises:
        ValueError: there are fewer images than clusters.
    """
    if num_clusters > run.num_images:
        raise ValueError(
            f"num_clusters {num_clusters} exceeds the {run.num_images} images: use "
            "fewer clusters."
        )
    projector = MLP((hidden_dim, projection_dim), dtype=backbone.dtype)
    network = base.Network(backbone, projector)

    def init(key, views):
        params, stats = base.init_network(network, key, views[0])
        return params, {
            "batch_stats": stats,
            "bank": jnp.zeros((2, run.num_images, projection_dim)),
            "prototypes": jnp.zeros((num_heads, num_clusters, projection_dim)),
            "clusters": jnp.full((num_heads, run.num_images), -100, jnp.int32),
        }

    def remember(bank, outputs, index):
        rows = [jax.lax.stop_gradient(losses.l2_normalize(z)) for _, z in outputs[:2]]
        banks = [base.write_rows(bank[g], index[:, g], rows[g]) for g in range(2)]
        return jnp.stack(banks)

    def fill_banks(params, state, batch):
        outputs, stats = base.forward(
            network, params, state["batch_stats"], batch.views[:2], joint=True
        )
        bank = remember(state["bank"], outputs, batch.index)
        return {**state, "batch_stats": stats, "bank": bank}

    def cluster(key, bank):
        prototypes, clusters = [], []
        for head in range(num_heads):
            own_key, points = jax.random.fold_in(key, head), bank[head % 2]
            seen = jnp.any(points != 0, axis=1)
            centroids, members = losses.spherical_kmeans(
                own_key, points, num_clusters, iterations=kmeans_iterations, valid=seen
            )
            prototypes.append(centroids)
            clusters.append(members)
        return jnp.stack(prototypes), jnp.stack(clusters)

    def loss(params, state, batch, key):
        drop_key, cluster_key = jax.random.split(key)
        prototypes, clusters = jax.lax.cond(
            batch.step % run.steps_per_epoch == 0,
            lambda: cluster(cluster_key, state["bank"]),
            lambda: (state["prototypes"], state["clusters"]),
        )
        outputs, stats = base.forward(
            network, params, state["batch_stats"], batch.views, drop_key, joint=True
        )
        z = jnp.concatenate([losses.l2_normalize(z) for _, z in outputs])
        # View v is of image v % 2 of the pair, so view (v + 1) % 2 is of the other.
        others = [batch.index[:, (v + 1) % 2] for v in range(len(batch.views))]
        scores = jnp.einsum(
            "nd,hkd->hnk", z, prototypes, precision=jax.lax.Precision.HIGHEST
        )
        targets = clusters[:, jnp.concatenate(others)]
        terms = [
            losses.deepcluster(scores[head], targets[head], temperature)
            for head in range(num_heads)
        ]
        correct = jnp.sum(jnp.argmax(scores[0], axis=1) == targets[0])
        (h1, z1), (h2, z2) = outputs[:2]
        metrics = {
            "pair_cosine": base.pair_cosine(z1, z2),
            "cluster_accuracy": correct / jnp.maximum(jnp.sum(targets[0] >= 0), 1),
        }
        state = {
            "batch_stats": stats,
            "bank": remember(state["bank"], outputs, batch.index),
            "prototypes": prototypes,
            "clusters": clusters,
        }
        features = jnp.stack([h1, h2], axis=1)
        return sum(terms) / num_heads, base.Output(state, metrics, features)

    return base.Method(init, loss, fill_banks=fill_banks)
