"""ResNet v1.5 in Linen, equal to torchvision's (He et al., arXiv 1512.03385).

v1.5 has the stride of a bottleneck in its 3x3 convolution. Submodules carry
torchvision's names (`layer1_0/conv1` is `layer1.0.conv1` there).

Source: https://arxiv.org/abs/1512.03385
"""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from sp_jax.domain import whole
from sp_jax.models.facts import Facts
from sp_jax.models.layers import BatchNorm, Conv, at_least_float32, max_pool

STEMS = ("imagenet", "small")
DOMAINS = {"width": whole(1, 2**14)}

Images = Float[Any, "n height width 3"]
Map = Float[Array, "n height width channels"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18 and -34)."""

    width: int
    stride: int
    zero_init_residual: bool
    dtype: DTypeLike
    expansion = 1

    @nn.compact
    def __call__(self, x: Map, train: bool) -> Float[Array, "n h w {self.width}"]:
        """Give a map with 1/stride of the rows and columns."""
        y = Conv(self.width, 3, self.stride, dtype=self.dtype, name="conv1")(x)
        y = BatchNorm(rectify=True, name="bn1")(y, train)
        y = Conv(self.width, 3, dtype=self.dtype, name="conv2")(y)
        y = BatchNorm(scale_init=_last_scale(self), name="bn2")(y, train)
        return nn.relu(y + _shortcut(self, x, y, train))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut (ResNet-50 and -101)."""

    width: int
    stride: int
    zero_init_residual: bool
    dtype: DTypeLike
    expansion = 4

    @nn.compact
    def __call__(self, x: Map, train: bool) -> Float[Array, "n h w {4*self.width}"]:
        """Give a map with 1/stride of the rows and columns."""
        y = Conv(self.width, 1, dtype=self.dtype, name="conv1")(x)
        y = BatchNorm(rectify=True, name="bn1")(y, train)
        y = Conv(self.width, 3, self.stride, dtype=self.dtype, name="conv2")(y)
        y = BatchNorm(rectify=True, name="bn2")(y, train)
        y = Conv(4 * self.width, 1, dtype=self.dtype, name="conv3")(y)
        y = BatchNorm(scale_init=_last_scale(self), name="bn3")(y, train)
        return nn.relu(y + _shortcut(self, x, y, train))


def _last_scale(block: nn.Module) -> nn.initializers.Initializer:
    if block.zero_init_residual:
        return nn.initializers.zeros
    return nn.initializers.ones


def _shortcut(
    block: nn.Module, x: Array, y: Float[Array, " *shape"], train: bool
) -> Float[Array, " *shape"]:
    if x.shape == y.shape:
        return x
    x = Conv(y.shape[-1], 1, block.stride, dtype=block.dtype, name="downsample_0")(x)
    return BatchNorm(name="downsample_1")(x, train)


class ResNet(Facts, nn.Module):
    """Backbone without classifier: images to globally averaged features.

    Attributes:
        stage_sizes: number of blocks of each of the four stages.
        block: `BasicBlock` or `Bottleneck`.
        width: channels of the first stage; 64 is the standard network.
        stem: "imagenet" (7x7 stride 2, then 3x3 max-pool stride 2) or "small" (3x3
            stride 1 and no pool: four times the resolution, about 16 times the cost;
            SimCLR's choice for images of 32 px and less).
        zero_init_residual: start each block as the identity, by a zero scale in its last
            normalisation (SimCLR, BYOL, VICReg, Barlow Twins, SimSiam and MoCo v3 do;
            the other methods do not).
        remat: keep only the inputs of the blocks, and compute what is inside them
            a second time for the gradient.
        dtype: compute dtype; parameters and statistics are float32.

    Raises:
        ValueError: at construction, if the stem is unknown.
    """

    stage_sizes: tuple[int, ...]
    block: type[nn.Module]
    width: int = 64
    stem: str = "imagenet"
    zero_init_residual: bool = True
    remat: bool = False
    dtype: DTypeLike = jnp.float32

    first_kernel = ("conv1", "kernel")
    weights = "sp_jax.weights.resnet"

    def __post_init__(self) -> None:
        """Check the stem as soon as it is set."""
        super().__post_init__()
        if self.stem not in STEMS:
            raise ValueError(
                f"There is no stem {self.stem!r}; choose 'imagenet' or 'small'."
            )

    @property
    def stride(self) -> int:
        """Pixels of the image from one position of `trunk`'s map to the next."""
        stem = 4 if self.stem == "imagenet" else 1
        return stem * 2 ** (len(self.stage_sizes) - 2)

    def layers(self) -> list[str]:
        """The stem and the stages; see `Facts.layers`."""
        stages = range(1, len(self.stage_sizes) + 1)
        return ["(conv1|bn1)/", *(f"layer{stage}_" for stage in stages)]

    def levels(self) -> list[str]:
        """The last block of each stage; see `Facts.levels`."""
        return [f"layer{i + 1}_{n - 1}" for i, n in enumerate(self.stage_sizes)]

    def describe(self) -> str:
        """A description in a few words."""
        return (
            f"ResNet of {sum(self.stage_sizes)} blocks ({self.block.__name__}), "
            f"width {self.width}, {self.stem} stem"
        )

    def setup(self) -> None:
        """Name the layers; those that are never called get no parameters."""
        kernel, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        self.conv1 = Conv(self.width, kernel, stride, dtype=self.dtype)
        self.bn1 = BatchNorm(rectify=True)
        block = nn.remat(self.block, static_argnums=2) if self.remat else self.block
        for stage, blocks in enumerate(self.stage_sizes):
            width = self.width * 2**stage
            for i in range(blocks):
                stride = 2 if stage > 0 and i == 0 else 1
                layer = block(width, stride, self.zero_init_residual, self.dtype)
                setattr(self, f"layer{stage + 1}_{i}", layer)

    def __call__(self, x: Images, train: bool) -> Float[Array, "n features"]:
        """Map normalised images to float32 features.

        There are `8 * width` of them with basic blocks, `32 * width` with bottlenecks.
        With `train`, the caller must make the collection "batch_stats" mutable.
        """
        x = self.last_stage(self.trunk(x, train), train)
        return jnp.mean(at_least_float32(x), axis=(1, 2))

    def trunk(self, x: Images, train: bool) -> Float[Array, "n h w channels"]:
        """All but the last stage ("C4" in detection): 1/16 of the rows and columns.

        With the small stem the map has four times as many.
        """
        x = self.bn1(self.conv1(x), train)
        if self.stem == "imagenet":
            x = max_pool(x)
        for stage in range(len(self.stage_sizes) - 1):
            x = self._stage(x, stage, train)
        return x

    def last_stage(self, x: Map, train: bool) -> Float[Array, "n h w out_channels"]:
        """Halve the rows and columns of the map of `trunk`, or of a part of it."""
        return self._stage(x, len(self.stage_sizes) - 1, train)

    def _stage(self, x: Map, stage: int, train: bool) -> Array:
        for i in range(self.stage_sizes[stage]):
            x = getattr(self, f"layer{stage + 1}_{i}")(x, train)
        return x


VARIANTS = {
    "resnet18": functools.partial(ResNet, (2, 2, 2, 2), BasicBlock),
    "resnet34": functools.partial(ResNet, (3, 4, 6, 3), BasicBlock),
    "resnet50": functools.partial(ResNet, (3, 4, 6, 3), Bottleneck),
    "resnet101": functools.partial(ResNet, (3, 4, 23, 3), Bottleneck),
}
