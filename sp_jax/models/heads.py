"""Projection heads: what stands between the features and the loss in training only."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from sp_jax.models.layers import BatchNorm


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
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Map features [N, D] to float32 projections [N, features]."""
        hidden = x.shape[-1]
        for i in range(self.layers):
            last = i == self.layers - 1
            x = nn.Dense(
                self.features if last else hidden,
                use_bias=False,
                kernel_init=nn.initializers.normal(0.01),
                dtype=self.dtype,
                name=f"dense{i}",
            )(x)
            x = BatchNorm(use_bias=not last, name=f"bn{i}")(x, train)
            x = x if last else nn.relu(x)
        return x.astype(jnp.float32)
