"""The network of Faster R-CNN with a backbone of `sp_jax.models`.

A region proposal network scores boxes around each position of a map, and a head looks at the
part of the map inside each proposal. With a ResNet the map is that of the last stage but
one, and the last stage is a part of the head: Detectron2's R50-C4, with the normalisation
that MoCo's protocol adds behind the last stage. With a vision transformer the map is that of
the patches, and the head has two dense layers.

Sources: https://arxiv.org/abs/1506.01497 for the two parts; https://arxiv.org/abs/1512.03385,
appendix A, for the last stage as a head; https://arxiv.org/abs/1911.05722, appendix, for the
normalisation behind it.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from sp_jax.models.layers import BatchNorm, at_least_float32

HIDDEN = 1024  # width of the dense layers of a head without convolutions


def _normal(features: int, std: float, name: str | None) -> nn.Dense:
    """A last layer: float32, because scores and boxes are."""
    init = nn.initializers.normal(std)
    return nn.Dense(features, kernel_init=init, dtype=jnp.float32, name=name)


class RegionProposals(nn.Module):
    """A hidden 3x3 convolution, and a score and four deltas for each anchor."""

    anchors: int  # at each position
    dtype: jnp.dtype  # of the convolution's arithmetic

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Map x [B, H, W, C] to logits [B, H * W * A] and deltas [B, H * W * A, 4]."""
        init = nn.initializers.normal(0.01)
        options = {"kernel_init": init, "dtype": self.dtype, "name": "conv"}
        x = nn.relu(nn.Conv(x.shape[-1], (3, 3), **options)(x))
        logits = _normal(self.anchors, 0.01, "objectness")(x)
        deltas = _normal(4 * self.anchors, 0.01, "deltas")(x)
        return logits.reshape(len(x), -1), deltas.reshape(len(x), -1, 4)


class FasterRCNN(nn.Module):
    """Backbone, region proposals and box head; `make_detector` puts them together.

    The backbone's variables stay under "backbone", with the names that they have in a
    checkpoint. ValueError at construction if it gives no map.
    """

    # It gives a map (`sp_jax.models.Facts`): a `ResNet`, or a `ViT` with `tokens="map"`.
    backbone: nn.Module
    num_classes: int  # of objects; the background is one more
    anchors: int  # at each position of the map

    def __post_init__(self):
        """Check the backbone as soon as it is set."""
        super().__post_init__()
        if self.backbone.stride is None:
            raise ValueError(
                "Detection needs a backbone that gives a map (a ResNet, or a vision "
                f"transformer with tokens='map'), and {self.backbone.describe()} gives none."
            )

    @property
    def pool_size(self) -> int:
        """Rows and columns of the head's input for each box."""
        return 14 if self.backbone.last_stage else 7

    def setup(self):
        """Name the layers; those that are never called get no parameters."""
        dtype = self.backbone.dtype
        self.rpn = RegionProposals(self.anchors, dtype)
        self.extra_norm = BatchNorm()
        # Uniform with the variance 1 / fan_in: Detectron2's for dense layers of a head.
        init = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
        self.fc1 = nn.Dense(HIDDEN, kernel_init=init, dtype=dtype)
        self.fc2 = nn.Dense(HIDDEN, kernel_init=init, dtype=dtype)
        self.scores = _normal(self.num_classes + 1, 0.01, None)
        self.deltas = _normal(4 * self.num_classes, 0.001, None)

    def __call__(self, images: jax.Array, train: bool) -> None:
        """Call every layer once, for `init`."""
        features = self.features(images, train)
        self.propose(features)
        size = self.pool_size
        crops = jnp.zeros((1, size, size, features.shape[-1]), features.dtype)
        self.classify(crops, train)

    def features(self, images: jax.Array, train: bool) -> jax.Array:
        """Map normalised images [B, H, W, 3] to a map [B, H/stride, W/stride, C].

        Its sides are rounded up, and it has the compute dtype of the backbone. ValueError if
        patches of a vision transformer do not divide the images.
        """
        return self.backbone.trunk(images, train)

    def propose(self, features: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Float32 logits [B, N] and deltas [B, N, 4] of a map's anchors (`make_anchors`)."""
        return self.rpn(features)

    def classify(self, crops: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """Scores and deltas of boxes, from parts [R, pool_size, pool_size, C] of the map.

        In training it normalises by the statistics of all crops, and updates the running ones.

        Returns:
            Logits float32 [R, num_classes + 1], of which the last is the background's, and
            deltas float32 [R, num_classes, 4].
        """
        if self.backbone.last_stage:
            x = self.extra_norm(self.backbone.last_stage(crops, train), train)
            x = jnp.mean(at_least_float32(x), axis=(1, 2))
        else:
            x = nn.relu(self.fc1(crops.reshape(len(crops), -1)))
            x = nn.relu(self.fc2(x))
        deltas = self.deltas(x).reshape(len(crops), self.num_classes, 4)
        return self.scores(x), deltas
