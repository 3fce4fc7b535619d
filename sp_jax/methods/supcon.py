"""SupCon: supervised contrastive learning.

SimCLR with labels: the views of all pairs of one class in the batch are positives of each
other, and only those of other classes are pushed away. It needs the label of each pair; a
pair without one (-1) has SimCLR's positive and negatives.

So it makes semantic positives by itself, of images of augmentation pairs, too: with 187
classes and 256 pairs a view has about 2.7 positives besides its own. Semantic pairs add that
this own one is another image, also where the batch holds no second pair of the class. A pair
has one label: of a table that pairs different classes it is the one that is written there.

The network, the views and the optimiser are SimCLR's, so that the two differ in nothing but
their positives.

Differences: the loss is not multiplied by the temperature, as in SimCLR, too. The head of the
official code has one hidden layer of 2048 (in the scripts none) and no normalisation, on
features of length 1; its images are changed by AutoAugment; its LARS has the learning
rate 0.4 and a weight decay of 1e-3.

Source: https://arxiv.org/abs/2004.11362; supcon in google-research/google-research for the
temperature.
"""

import flax.linen as nn
import jax.numpy as jnp

from sp_jax import losses
from sp_jax.methods import base, simclr
from sp_jax.models import SimCLRHead

OPTIMIZER = simclr.OPTIMIZER
RULES = simclr.RULES
PROBE = simclr.PROBE
views = simclr.views


def create(
    backbone: nn.Module,
    run: base.RunSize,
    *,
    temperature: float = 0.1,
    projection_dim: int = 128,
    projection_layers: int = 3,
) -> base.Method:
    """Make SupCon around a backbone.

    Args:
        backbone: a module of `sp_jax.models`.
        run: the run's lengths; SupCon does not depend on them.
        temperature: of the loss.
        projection_dim: width of the projections.
        projection_layers: dense layers of the projector.

    Returns:
        The method; its state is `{"batch_stats": ...}`. Its metric `positives` is the mean
        number of positives of a view: 1 where no two pairs share a label.
    """
    head = SimCLRHead(projection_dim, projection_layers, dtype=backbone.dtype)
    network = base.Network(backbone, head)

    def loss(batch, one, two):
        (_, z1), (_, z2) = one, two
        # Pairs of the label of each, itself included; each other pair has two views.
        label = batch.label
        pairs = jnp.sum((label[:, None] == label) & (label >= 0), axis=1)
        metrics = {"positives": jnp.mean(2.0 * jnp.maximum(pairs, 1) - 1.0)}
        return losses.supcon(z1, z2, label, temperature), metrics

    return base.siamese(network, loss, joint=True, needs_labels=True)
