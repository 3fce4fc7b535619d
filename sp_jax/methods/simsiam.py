"""SimSiam: exploring simple siamese representation learning.

One network makes a projection of each view; a predictor of one view's projection has to
match the other view's, through which no gradient flows. There are no negatives and no
moving average.

As in the official code each view has a forward of its own, and the predictor keeps its
learning rate constant: it should stay close to the best predictor of the changing
projections. The official projector ends in a bias that is never trained and that the
following normalisation removes; it is left out here.
With semantic pairs nothing changes but the images.

Difference: the blur is SimCLR's, with a kernel of a tenth of the view; the official one is
PIL's.

Source: https://arxiv.org/abs/2011.10566; facebookresearch/simsiam for sizes and constants.
"""

import flax.linen as nn

from sp_jax import losses, optim
from sp_jax.augment import Augment
from sp_jax.methods import base
from sp_jax.models import MLP

OPTIMIZER = {
    "name": "sgd",
    "learning_rate": 0.05,
    "weight_decay": 1e-4,
    "momentum": 0.9,
    "warmup_epochs": 0.0,
    "by_epoch": True,
}
# The official code decays all parameters.
RULES = (optim.Rule("^predictor/", constant=True), *optim.DECAY_ALL)
PROBE = base.ProbeRecipe(0.1, 4096, 90, scaled=True, larc=True)


def views(size: int) -> tuple[Augment, Augment]:
    """The two default views: those of MoCo v2, symmetric."""
    view = Augment(
        size=size,
        crop_scale=(0.2, 1.0),
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.1,
    )
    return view, view


def create(
    backbone: nn.Module,
    run: base.RunSize,
    *,
    projection_dim: int = 2048,
    projection_layers: int = 3,
    predictor_dim: int = 512,
) -> base.Method:
    """Make SimSiam around a backbone.

    Args:
        backbone: a module of `sp_jax.models`.
        run: the run's lengths; SimSiam does not depend on them.
        projection_dim: width of the projector's layers and of the predictions.
        projection_layers: 3 for ImageNet, 2 for CIFAR-10.
        predictor_dim: width of the predictor's hidden layer: a bottleneck.

    Returns:
        The method; its state is `{"batch_stats": ...}`. Its metric `projection_std` is
        the standard deviation of the unit projections times the root of their width: about 1 in
        a healthy run and 0 after a collapse.
    """
    widths, dtype = (projection_dim,) * projection_layers, backbone.dtype
    projector = MLP(
        widths, hidden_bias=False, last_bias=False, last_norm="plain", dtype=dtype
    )
    predictor = MLP((predictor_dim, projection_dim), hidden_bias=False, dtype=dtype)
    network = base.Network(backbone, projector, predictor)

    def loss(batch, one, two):
        (_, z1, p1), (_, z2, p2) = one, two
        value = (losses.simsiam(p1, z2) + losses.simsiam(p2, z1)) / 2
        return value, {"projection_std": losses.feature_std(z1) * projection_dim**0.5}

    return base.siamese(network, loss, joint=False)
