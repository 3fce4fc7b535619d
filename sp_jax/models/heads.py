"""Projection heads: layers between the features and the loss, used in training only."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, Float32

from sp_jax.losses import l2_normalize
from sp_jax.models.layers import BatchNorm

Rows = Float[Any, "n width"]

# PyTorch's default for linear layers: uniform in +-1 / sqrt(fan_in).
torch_linear = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def torch_bias(fan_in: int) -> nn.initializers.Initializer:
    """PyTorch's default for the bias of a linear layer: drawn like its weights."""

    def init(key, shape, dtype=jnp.float32):
        limit = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init


class MLP(nn.Module):
    """Dense layers, with batch normalisation and ReLU after all but the last.

    Attributes:
        widths: of each dense layer.
        hidden_bias: whether the hidden dense layers have a bias.
        last_bias: whether the last one has.
        hidden_norm: batch normalisation before each ReLU.
        last_norm: of the output: "none", "affine" or "plain" (no scale and no bias).
        dtype: compute dtype; parameters are float32, drawn as PyTorch draws them.
    """

    widths: tuple[int, ...]
    hidden_bias: bool = True
    last_bias: bool = True
    hidden_norm: bool = True
    last_norm: str = "none"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Rows, train: bool) -> Float32[Array, "n {self.widths[-1]}"]:
        """Map features through the layers."""
        dense = functools.partial(nn.Dense, kernel_init=torch_linear, dtype=self.dtype)
        for i, width in enumerate(self.widths):
            last = i == len(self.widths) - 1
            bias = self.last_bias if last else self.hidden_bias
            init = torch_bias(x.shape[-1])
            x = dense(width, use_bias=bias, bias_init=init, name=f"dense{i}")(x)
            if not last:
                norm = BatchNorm(rectify=True, name=f"bn{i}")
                x = norm(x, train) if self.hidden_norm else nn.relu(x)
            elif self.last_norm != "none":
                affine = self.last_norm == "affine"
                norm = BatchNorm(use_scale=affine, use_bias=affine, name=f"bn{i}")
                x = norm(x, train)
        return x.astype(jnp.float32)


class SimCLRHead(nn.Module):
    """SimCLR v2's projector: (Dense, BN, ReLU) x (layers - 1), then Dense and BN.

    No dense layer has a bias; the last normalisation has a scale and no bias; weights are
    drawn from N(0, 0.01), as in the official TensorFlow code.

    Attributes:
        features: width of the output.
        layers: number of dense layers (the paper's v1 has 2, the official code 3).
        dtype: compute dtype; parameters are float32.

    Source: https://arxiv.org/abs/2002.05709, https://arxiv.org/abs/2006.10029
    """

    features: int = 128
    layers: int = 3
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Rows, train: bool) -> Float32[Array, "n {self.features}"]:
        """Map features to projections."""
        hidden, init = x.shape[-1], nn.initializers.normal(0.01)
        dense = functools.partial(nn.Dense, use_bias=False, kernel_init=init)
        for i in range(self.layers):
            last = i == self.layers - 1
            width = self.features if last else hidden
            x = dense(width, dtype=self.dtype, name=f"dense{i}")(x)
            norm = BatchNorm(use_bias=not last, rectify=not last, name=f"bn{i}")
            x = norm(x, train)
        return x.astype(jnp.float32)


class DINOHead(nn.Module):
    """DINO's head: three dense layers with GELU, a unit bottleneck, weight-normed logits.

    Attributes:
        out_dim: number of logits.
        hidden_dim: width of the two hidden layers.
        bottleneck_dim: width before the last layer.
        norm_last_layer: each logit's weights have length 1; otherwise a trained length.
        hidden_norm: batch normalisation before each GELU (`use_bn_in_head` of the
            official code, off there by default).
        dtype: compute dtype; parameters are float32.

    Source: https://arxiv.org/abs/2104.14294, appendix C.
    """

    out_dim: int = 65536
    hidden_dim: int = 2048
    bottleneck_dim: int = 256
    norm_last_layer: bool = True
    hidden_norm: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Rows, train: bool) -> Float32[Array, "n {self.out_dim}"]:
        """Map features to logits."""
        widths = (self.hidden_dim, self.hidden_dim, self.bottleneck_dim)
        # The official "truncated" normal is cut at 2, which is 100 standard deviations.
        init = nn.initializers.normal(0.02)
        for i, width in enumerate(widths):
            x = nn.Dense(width, kernel_init=init, dtype=self.dtype, name=f"dense{i}")(x)
            if i < 2:
                x = BatchNorm(name=f"bn{i}")(x, train) if self.hidden_norm else x
                x = nn.gelu(x, approximate=False)
        return LastLayer(
            self.out_dim, self.norm_last_layer, self.dtype, name="last_layer"
        )(x)


class LastLayer(nn.Module):
    """Cosines with the columns of a kernel, times 1 or a trained length for each column."""

    features: int
    unit: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Rows) -> Float32[Array, "n {self.features}"]:
        """Map x to cosines."""
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", torch_linear, shape)
        kernel = l2_normalize(kernel.T).T.astype(self.dtype)
        # Sums are kept in float32: logits are divided by a temperature of 0.04.
        x = l2_normalize(x).astype(self.dtype)
        y = jnp.matmul(x, kernel, preferred_element_type=jnp.float32)
        if self.unit:
            return y
        return y * self.param("scale", nn.initializers.ones, (self.features,))
