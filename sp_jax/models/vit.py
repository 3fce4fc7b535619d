"""Vision transformer in Linen, exact to timm's and DINO's (Dosovitskiy et al.).

Submodules carry timm's names (`block0/attn/qkv` is `blocks.0.attn.qkv` there).

Sources: https://arxiv.org/abs/2010.11929; https://arxiv.org/abs/2104.14294 for other image
sizes; https://arxiv.org/abs/2104.02057 for the fixed position embedding.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sp_jax.models.layers import at_least_float32

# PyTorch's "truncated" normal is cut at 2, which is 100 deviations.
normal = nn.initializers.normal(0.02)
xavier = nn.initializers.xavier_uniform()


def _xavier_qkv(key, shape, dtype=jnp.float32):
    """Xavier for query, key and value as three matrices of their own."""
    parts = [
        xavier(k, (shape[0], shape[1] // 3), dtype) for k in jax.random.split(key, 3)
    ]
    return jnp.concatenate(parts, axis=1)


class PatchEmbed(nn.Module):
    """A linear projection of each patch: [N, H, W, 3] to [N, gh, gw, dim]."""

    dim: int
    patch: int
    fixed: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Cut the images into patches and project them."""
        n, height, width, channels = x.shape
        p = self.patch
        fan_in = channels * p * p
        # PyTorch's default for a convolution; MoCo v3: Xavier, as if it were dense.
        limit = (6 / (fan_in + self.dim)) ** 0.5 if self.fixed else fan_in**-0.5
        init = _uniform(limit)
        bias_init = nn.initializers.zeros if self.fixed else init
        kernel = self.param("kernel", init, (p, p, channels, self.dim))
        bias = self.param("bias", bias_init, (self.dim,))
        if self.fixed:
            kernel, bias = jax.lax.stop_gradient((kernel, bias))
        x = x.reshape(n, height // p, p, width // p, p, channels)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(n, height // p, width // p, fan_in)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        return x @ kernel.reshape(fan_in, self.dim) + bias.astype(self.dtype)


def _uniform(limit: float):
    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init


class Attention(nn.Module):
    """Multi-head self-attention with a bias of query, key and value."""

    heads: int
    xavier: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map tokens [N, T, D] to [N, T, D]."""
        n, t, d = x.shape
        dense = functools.partial(nn.Dense, dtype=self.dtype)
        init = _xavier_qkv if self.xavier else normal
        qkv = dense(3 * d, kernel_init=init, name="qkv")(x)
        qkv = qkv.reshape(n, t, 3, self.heads, d // self.heads)
        q, k, v = (qkv[:, :, i] for i in range(3))
        scores = jnp.einsum("nqhd,nkhd->nhqk", q * (d // self.heads) ** -0.5, k)
        weights = jax.nn.softmax(at_least_float32(scores), axis=-1).astype(x.dtype)
        x = jnp.einsum("nhqk,nkhd->nqhd", weights, v).reshape(n, t, d)
        return dense(d, kernel_init=xavier if self.xavier else normal, name="proj")(x)


class MLPBlock(nn.Module):
    """Two dense layers with an exact GELU between."""

    hidden: int
    xavier: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map tokens [N, T, D] to [N, T, D]."""
        init = xavier if self.xavier else normal
        d = x.shape[-1]
        x = nn.Dense(self.hidden, kernel_init=init, dtype=self.dtype, name="fc1")(x)
        x = nn.gelu(x, approximate=False)
        return nn.Dense(d, kernel_init=init, dtype=self.dtype, name="fc2")(x)


class Block(nn.Module):
    """Attention and MLP, each after a normalisation and with a shortcut."""

    heads: int
    hidden: int
    drop_path: float
    xavier: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Map tokens [N, T, D] to [N, T, D]."""
        y = _norm(self.dtype, "norm1")(x)
        y = Attention(self.heads, self.xavier, self.dtype, name="attn")(y)
        x = x + self._drop(y, train)
        y = _norm(self.dtype, "norm2")(x)
        y = MLPBlock(self.hidden, self.xavier, self.dtype, name="mlp")(y)
        return x + self._drop(y, train)

    def _drop(self, y: jax.Array, train: bool) -> jax.Array:
        if not train or self.drop_path == 0 or not self.has_rng("drop_path"):
            return y
        keep = 1 - self.drop_path
        kept = jax.random.bernoulli(
            self.make_rng("drop_path"), keep, (y.shape[0], 1, 1)
        )
        return jnp.where(kept, y / keep, 0.0)


def _norm(dtype: jnp.dtype, name: str) -> nn.Module:
    # flax computes the statistics in float32 at least. One pass over x is less exact.
    return nn.LayerNorm(epsilon=1e-6, use_fast_variance=False, dtype=dtype, name=name)


class ViT(nn.Module):
    """Backbone without classifier: images to the class token after the last norm.

    Attributes:
        dim: width of the tokens.
        depth: number of blocks.
        heads: of the attention; divides dim.
        patch_size: side of a patch in pixels.
        image_size: side of the images for which the position embedding is made. Others
            are fine if patch_size divides them: a learned embedding is interpolated,
            bicubic, as in DINO's code.
        mlp_ratio: hidden width of the MLPs / dim.
        drop_path: probability to skip the last block for an image; it rises from 0 in
            the first. Only with `train` and a random key "drop_path": without the key
            nothing is skipped, as in a teacher.
        position: "learned", or "sincos": fixed and two-dimensional, with MoCo v3's
            initialisation of all layers.
        freeze_patch_embedding: no gradient into the projection of the patches (MoCo v3).
        dtype: compute dtype; parameters are float32.
    """

    dim: int
    depth: int
    heads: int
    patch_size: int = 16
    image_size: int = 64
    mlp_ratio: int = 4
    drop_path: float = 0.0
    position: str = "learned"
    freeze_patch_embedding: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Map normalised images [N, H, W, 3] to float32 features [N, dim].

        Raises:
            ValueError: patch_size does not divide the images.
        """
        n, height, width, _ = x.shape
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"Patches of {self.patch_size} px do not divide images of {height} x "
                f"{width} px: choose another patch_size or image size."
            )
        grid = (height // self.patch_size, width // self.patch_size)
        fixed = self.position == "sincos"
        x = PatchEmbed(
            self.dim,
            self.patch_size,
            self.freeze_patch_embedding,
            self.dtype,
            name="patch_embed",
        )(x)
        x = x.reshape(n, -1, self.dim)
        cls_init = nn.initializers.normal(1e-6) if fixed else normal
        cls = self.param("cls_token", cls_init, (1, 1, self.dim))
        cls = jnp.broadcast_to(cls.astype(x.dtype), (n, 1, self.dim))
        x = jnp.concatenate([cls, x], axis=1)
        if fixed:
            position = jnp.asarray(sincos_embedding(*grid, self.dim))
        else:
            own = self.image_size // self.patch_size
            shape = (1, 1 + own * own, self.dim)
            position = self.param("pos_embed", normal, shape)
            position = interpolate_positions(position, own, grid)
        x = x + position.astype(x.dtype)
        for i in range(self.depth):
            x = Block(
                self.heads,
                self.mlp_ratio * self.dim,
                self.drop_path * i / max(self.depth - 1, 1),
                fixed,
                self.dtype,
                name=f"block{i}",
            )(x, train)
        return at_least_float32(_norm(self.dtype, "norm")(x)[:, 0])


def sincos_embedding(height: int, width: int, dim: int) -> np.ndarray:
    """MoCo v3's fixed position embedding, float32 [1, 1 + height * width, dim].

    A quarter of the width each for sine and cosine of the column and of the row, with
    wavelengths from 2 pi to 20,000 pi; the class token has zeros.
    """
    frequency = 10000.0 ** -(np.arange(dim // 4) / (dim // 4))
    row, column = np.mgrid[:height, :width].reshape(2, -1, 1) * frequency
    parts = [np.sin(column), np.cos(column), np.sin(row), np.cos(row)]
    table = np.concatenate([np.zeros((1, dim)), np.concatenate(parts, axis=1)])
    return table[None].astype(np.float32)


def interpolate_positions(
    position: jax.Array, own: int, grid: tuple[int, int]
) -> jax.Array:
    """Resize a learned position embedding to another grid of patches, as DINO does.

    Args:
        position: [1, 1 + own * own, D], the class token's first.
        own: side of its grid.
        grid: height and width of the grid wanted.

    Returns:
        [1, 1 + height * width, D].
    """
    if grid == (own, own):
        return position
    cls, patches = position[:, :1], position[:, 1:]
    dim = patches.shape[-1]
    patches = patches.reshape(own, own, dim)
    rows, columns = (_bicubic(own, size) for size in grid)
    patches = jnp.einsum(
        "yh,xw,hwd->yxd", rows, columns, patches, precision=jax.lax.Precision.HIGHEST
    )
    return jnp.concatenate([cls, patches.reshape(1, -1, dim)], axis=1)


def _bicubic(size: int, wanted: int) -> np.ndarray:
    """Weights [wanted, size] of PyTorch's bicubic resize without antialiasing.

    DINO calls it with the scale (wanted + 0.1) / size, against a rounding error; the scale
    also moves the sampling points, so it is kept.
    """
    a = -0.75
    weights = np.zeros((wanted, size))
    for i in range(wanted):
        centre = (i + 0.5) * size / (wanted + 0.1) - 0.5
        start = int(np.floor(centre))
        for tap in range(start - 1, start + 3):
            t = abs(centre - tap)
            if t <= 1:
                w = (a + 2) * t**3 - (a + 3) * t**2 + 1
            else:
                w = a * (t**3 - 5 * t**2 + 8 * t - 4)
            weights[i, min(max(tap, 0), size - 1)] += w
    return weights
