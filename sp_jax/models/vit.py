"""Vision transformer in Linen, equal to timm's and DINO's (Dosovitskiy et al.).

Submodules carry timm's names (`block0/attn/qkv` is `blocks.0.attn.qkv` there).

Sources: https://arxiv.org/abs/2010.11929; https://arxiv.org/abs/2104.14294 for other image
sizes; https://arxiv.org/abs/2104.02057 for the fixed position embedding.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, Float64

from sp_jax.domain import BELOW_ONE, PIXELS, Domain, whole
from sp_jax.models.attention import attend, attend_padded, fits_cudnn
from sp_jax.models.facts import Facts
from sp_jax.models.heads import torch_bias, torch_linear
from sp_jax.models.layers import LayerNorm, at_least_float32

POSITIONS = ("learned", "sincos")
TOKENS = ("cls", "cls4", "mean")  # and "map", which are no features of an image
ATTENTION = ("auto", "xla", "cudnn")
DOMAINS = {
    "dim": whole(1, 2**14),
    "depth": whole(1, 1024),
    "heads": whole(1, 1024),
    "mlp_ratio": Domain(0, 64, above=True),
    "patch_size": PIXELS,
    "image_size": PIXELS,
    "drop_path": BELOW_ONE,
}

# The official "truncated" normal is cut at 2, which is 100 standard deviations.
normal = nn.initializers.normal(0.02)

Images = Float[Any, "n height width channels"]
Tokens = Float[Array, "n tokens dim"]


def xavier(parts: int = 1) -> nn.initializers.Initializer:
    """Glorot's uniform for kernels whose last axis holds that many separate matrices.

    A kernel [p, p, 3, D] counts as the matrix [3 p^2, D] that multiplies a patch.
    """

    def init(key, shape, dtype=jnp.float32):
        fan_in, fan_out = math.prod(shape[:-1]), shape[-1] // parts
        limit = math.sqrt(6 / (fan_in + fan_out))
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init


def _dense(
    module: nn.Module, x: Tokens, features: int, name: str, parts: int = 1
) -> Float[Array, "n tokens {features}"]:
    """A dense layer for each token, as rows of one matrix: `layers.Conv` says why."""
    init = xavier(parts) if module.xavier else normal
    layer = nn.Dense(features, kernel_init=init, dtype=module.dtype, name=name)
    return layer(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], features)


def gelu(x: Float[Any, " *shape"]) -> Float[Array, " *shape"]:
    """Exact GELU, as PyTorch computes it.

    `jax.nn.gelu` takes erfc, which is more exact far below zero, and almost three times
    slower on a CPU.
    """
    wide = at_least_float32(x)
    return (0.5 * wide * (1 + jax.lax.erf(wide * 0.5**0.5))).astype(x.dtype)


class PatchProjection(nn.Module):
    """Convolution whose stride is its kernel, as one matrix product."""

    features: int
    patch_size: int
    xavier: bool
    frozen: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "n patches {self.features}"]:
        """Map images to the features of their patches, row by row."""
        n, height, width, channels = x.shape
        p = self.patch_size
        fan_in = p * p * channels
        # Otherwise PyTorch's default, which DINO's code does not change.
        init = xavier() if self.xavier else torch_linear
        bias_init = nn.initializers.zeros if self.xavier else torch_bias(fan_in)
        w = self.param("kernel", init, (p, p, channels, self.features))
        b = self.param("bias", bias_init, (self.features,))
        if self.frozen:
            w, b = jax.lax.stop_gradient((w, b))
        x, w, b = (jnp.asarray(v, self.dtype) for v in (x, w, b))
        x = x.reshape(n, height // p, p, width // p, p, channels).swapaxes(2, 3)
        y = x.reshape(-1, fan_in) @ w.reshape(fan_in, -1) + b  # rows, as in _dense
        return y.reshape(n, -1, self.features)


class PatchEmbed(nn.Module):
    """The projection under timm's name, `patch_embed/proj`."""

    proj: PatchProjection

    def __call__(self, x: Images) -> Tokens:
        """Map images to the features of their patches, row by row."""
        return self.proj(x)


class Attention(nn.Module):
    """Multi-head self-attention; queries, keys and values have biases.

    Attributes:
        tokens: how many there are, without those that fill up, to attend in one kernel.
    """

    heads: int
    xavier: bool
    dtype: DTypeLike
    tokens: int | None = None

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        """Let each token attend to all tokens of its image."""
        n, tokens, dim = x.shape
        size = dim // self.heads
        qkv = _dense(self, x, 3 * dim, "qkv", parts=3)
        q, k, v = jnp.moveaxis(qkv.reshape(n, tokens, 3, self.heads, size), 2, 0)
        if self.tokens is None:
            y = attend(q, k, v)
        else:
            y = attend_padded(q, k, v, self.tokens)
        return _dense(self, y.reshape(n, tokens, dim), dim, "proj")


class FeedForward(nn.Module):
    """Two dense layers with an exact GELU between them."""

    hidden: int
    xavier: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        """Map each token by itself."""
        y = gelu(_dense(self, x, self.hidden, "fc1"))
        return _dense(self, y, x.shape[-1], "fc2")


class Block(nn.Module):
    """Attention and two dense layers, each normalised before and with a shortcut.

    Attributes:
        hidden: width between the two dense layers.
        drop_path: probability that a sample skips a branch, drawn for each of the two.
        xavier: draw the kernels as MoCo v3 does; otherwise as DINO.
        dtype: compute dtype of the two branches.
        tokens: see `Attention`.
    """

    heads: int
    hidden: int
    drop_path: float
    xavier: bool
    dtype: DTypeLike
    tokens: int | None = None

    @nn.compact
    def __call__(self, x: Tokens, train: bool) -> Tokens:
        """Map tokens to tokens of the same dtype."""
        y = LayerNorm(dtype=self.dtype, name="norm1")(x)
        heads, xavier = self.heads, self.xavier
        y = Attention(heads, xavier, self.dtype, self.tokens, name="attn")(y)
        x = x + self._drop(y, train)
        y = LayerNorm(dtype=self.dtype, name="norm2")(x)
        y = FeedForward(self.hidden, self.xavier, self.dtype, name="mlp")(y)
        return x + self._drop(y, train)

    def _drop(self, y: Tokens, train: bool) -> Tokens:
        if not (train and self.drop_path > 0 and self.has_rng("drop_path")):
            return y
        keep = 1 - self.drop_path
        kept = jax.random.bernoulli(self.make_rng("drop_path"), keep, (len(y), 1, 1))
        return jnp.where(kept, y / keep, 0)


class ViT(Facts, nn.Module):
    """Backbone without classifier: images to the class token, or others, after the norm.

    With `capture_intermediates=True`, `apply` also gives all tokens: "norm" has the
    normalised ones [N, 1 + patches, dim], "block11" those behind the twelfth block.

    Attributes:
        dim: width of the tokens.
        depth: number of blocks.
        heads: number of heads of the attention.
        mlp_ratio: width between the two dense layers of a block, as a multiple of dim.
        patch_size: side of a patch in pixels.
        image_size: that the learned position embedding fits; interpolated for others.
        drop_path: stochastic depth (arXiv 1603.09382): the probability that a sample
            skips a branch of the last block. It rises linearly from 0 in the first. It
            acts only with `train` and where `apply` is given the rng "drop_path", so a
            teacher is given none.
        position: "learned" (DINO) or "sincos" (MoCo v3: fixed, computed for any size of
            the images, with positions that count from 0 in steps of 1 patch). It also
            chooses how parameters are drawn: as the one or the other official code.
        tokens: what the features are: "cls", the class token; "cls4", those of the last
            four blocks, each after the last norm, one after the other (DINO's linear
            evaluation of ViT-S); "mean" of the patches. "map" gives all of the patches,
            in their places, for detection.
        freeze_patch_embedding: stop the gradient of the patch projection (MoCo v3). It
            stays among the parameters, and weight decay would still move it.
        remat: keep only the inputs of the blocks, and compute what is inside them
            a second time for the gradient.
        attention: "xla" attends in plain operations, "cudnn" in one kernel where
            `one_kernel` says that it can, else plainly, too: they differ by rounding. "auto"
            is the one that was timed on a GPU, "xla".
        dtype: compute dtype; parameters, the sum along the shortcuts and the statistics
            of the normalisations are float32, as under PyTorch's autocast.

    Raises:
        ValueError: at construction, if the sizes do not divide each other, the position,
            the tokens or the attention are unknown, or there are fewer than four blocks
            for "cls4".
    """

    dim: int
    depth: int
    heads: int
    mlp_ratio: float = 4
    patch_size: int = 16
    image_size: int = 64
    drop_path: float = 0.0
    position: str = "learned"
    tokens: str = "cls"
    freeze_patch_embedding: bool = False
    remat: bool = False
    attention: str = "auto"
    dtype: DTypeLike = jnp.float32

    is_transformer = True
    token_kinds = TOKENS
    first_kernel = ("patch_embed", "proj", "kernel")
    weights = "sp_jax.weights.vit"

    def __post_init__(self) -> None:
        """Check the attributes as soon as they are set."""
        super().__post_init__()
        if self.position not in POSITIONS:
            raise ValueError(
                f"There is no position {self.position!r}; choose 'learned' or 'sincos'."
            )
        if self.tokens not in (*TOKENS, "map"):
            raise ValueError(
                f"There are no tokens {self.tokens!r}; choose 'cls', 'cls4' or 'mean'."
            )
        if self.attention not in ATTENTION:
            raise ValueError(
                f"There is no attention {self.attention!r}; choose 'auto', 'xla' or 'cudnn'."
            )
        if self.tokens == "cls4" and self.depth < 4:
            raise ValueError(
                f"tokens='cls4' needs four blocks; there are {self.depth}."
            )
        if self.image_size % self.patch_size:
            raise ValueError(
                f"The patch_size {self.patch_size} does not divide the image_size "
                f"{self.image_size}."
            )
        if self.dim % self.heads:
            raise ValueError(f"{self.heads} heads do not divide dim={self.dim}.")
        if self.position == "sincos" and self.dim % 4:
            raise ValueError(
                f"position='sincos' needs dim to be a multiple of 4; it is {self.dim}."
            )

    @property
    def stride(self) -> int | None:
        """Pixels between two positions of `trunk`'s map, which tokens="map" gives."""
        return self.patch_size if self.tokens == "map" else None

    @property
    def one_kernel(self) -> bool:
        """Whether cuDNN attends: it was asked for, and there is a GPU and a narrow dtype."""
        cudnn = self.attention == "cudnn"
        return cudnn and fits_cudnn(self.dim // self.heads, self.dtype)

    def layers(self) -> list[str]:
        """The embeddings, the blocks and the last norm; see `Facts.layers`."""
        blocks = (f"block{i}/" for i in range(self.depth))
        return ["(patch_embed|cls_token|pos_embed)", *blocks, "norm/"]

    def levels(self) -> list[str]:
        """The block after each fourth of the depth; see `Facts.levels`."""
        ends = {-(-self.depth * quarter // 4) - 1 for quarter in range(1, 5)}
        return [f"block{i}" for i in sorted(ends)]

    def for_detection(self) -> "ViT":
        """The same network with the map of the patches as its features."""
        return self.clone(tokens="map")

    def describe(self) -> str:
        """A description in a few words."""
        return (
            f"ViT of {self.depth} blocks, width {self.dim}, {self.heads} heads, "
            f"patches of {self.patch_size} px"
        )

    @nn.compact
    def __call__(
        self, x: Float[Any, "n height width 3"], train: bool
    ) -> Float[Array, " n *features"]:
        """Map normalised images to float32 features, as many as `dim`.

        With tokens="cls4" there are 4 dim features; with "map" they are
        [n, height / p, width / p, dim] for patches of p pixels.

        Raises:
            ValueError: a side of the images is not a multiple of the patch size.
        """
        height, width = x.shape[1:3]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"Images of {height} x {width} px cannot be cut into patches of "
                f"{self.patch_size} px; choose another size of the images or patches."
            )
        grid = (height // self.patch_size, width // self.patch_size)
        moco, frozen = self.position == "sincos", self.freeze_patch_embedding
        projection = PatchProjection(
            self.dim, self.patch_size, moco, frozen, self.dtype, parent=None
        )
        x = at_least_float32(PatchEmbed(projection, name="patch_embed")(x))
        cls_init = nn.initializers.normal(1e-6) if moco else normal
        cls = self.param("cls_token", cls_init, (1, 1, self.dim))
        cls = jnp.broadcast_to(cls, (len(x), 1, self.dim)).astype(x.dtype)
        x = jnp.concatenate([cls, x], axis=1)
        if moco:
            x = x + sincos_position(*grid, self.dim).astype(x.dtype)
        else:
            side = self.image_size // self.patch_size
            shape = (1, 1 + side * side, self.dim)
            x = x + resize_position(self.param("pos_embed", normal, shape), grid)
        tokens = x.shape[1]
        if self.one_kernel:  # cuDNN's gradient needs an even number.
            x = jnp.pad(x, ((0, 0), (0, tokens % 2), (0, 0)))
        attended = tokens if self.one_kernel else None
        make = nn.remat(Block, static_argnums=2) if self.remat else Block
        hidden, class_tokens = int(self.mlp_ratio * self.dim), []
        for i in range(self.depth):
            drop = self.drop_path * i / max(self.depth - 1, 1)
            options = self.heads, hidden, drop, moco, self.dtype, attended
            x = make(*options, name=f"block{i}")(x, train)
            class_tokens.append(x[:, 0])
        norm = LayerNorm(dtype=x.dtype, name="norm")
        if self.tokens == "cls4":
            return norm(jnp.stack(class_tokens[-4:], axis=1)).reshape(len(x), -1)
        x = norm(x[:, :tokens])
        if self.tokens == "map":
            return x[:, 1:].reshape(len(x), *grid, self.dim)
        return x[:, 1:].mean(axis=1) if self.tokens == "mean" else x[:, 0]

    def trunk(
        self, x: Float[Any, "n height width 3"], train: bool
    ) -> Float[Array, "n rows columns {self.dim}"]:
        """The map of the patches in the compute dtype, for detection."""
        return self(x, train).astype(self.dtype)

    def class_attention(
        self, variables: Any, x: Float[Any, "n height width 3"]
    ) -> Float[Array, "n {self.heads} rows columns"]:
        """Attention of the class token in the last block; see `Facts.class_attention`."""
        last = (f"block{self.depth - 1}", "attn", "qkv")

        def keep(layer: nn.Module, method: str) -> bool:
            return layer.path[-3:] == last

        _, kept = self.clone(attention="xla").apply(
            variables, x, False, capture_intermediates=keep, mutable="intermediates"
        )
        (qkv,) = jax.tree.leaves(kept)
        # [N, tokens, 3, heads, size], as the block itself takes them apart.
        qkv = qkv.reshape(len(x), -1, 3, self.heads, self.dim // self.heads)
        query, key = jnp.moveaxis(qkv.astype(jnp.float32), 2, 0)[:2]
        logits = jnp.einsum("nhd,nkhd->nhk", query[:, 0], key) * query.shape[-1] ** -0.5
        rows, columns = (side // self.patch_size for side in x.shape[1:3])
        weights = jax.nn.softmax(logits)[..., 1:]
        return weights.reshape(len(x), self.heads, rows, columns)


VARIANTS = {
    "vit_tiny": functools.partial(ViT, dim=192, depth=12, heads=3),
    "vit_small": functools.partial(ViT, dim=384, depth=12, heads=6),
    "vit_base": functools.partial(ViT, dim=768, depth=12, heads=12),
}


def sincos_position(
    height: int, width: int, dim: int
) -> Float64[np.ndarray, "1 {1+height*width} {dim}"]:
    """MoCo v3's fixed position embedding.

    A quarter of dim each is the sine and the cosine of the row, then of the column, at
    wavelengths from 2 pi to almost 20,000 pi; zero for the class token. The official
    code calls the rows "w", because PyTorch's meshgrid puts the first axis first.
    """
    frequencies = 10000.0 ** -(np.arange(dim // 4) / (dim // 4))
    rows, columns = np.indices((height, width)).reshape(2, -1, 1) * frequencies
    waves = [np.sin(rows), np.cos(rows), np.sin(columns), np.cos(columns)]
    table = np.concatenate(waves, axis=1)
    return np.concatenate([np.zeros((1, dim)), table])[None]


def resize_position(
    position: Float[Any, "1 tokens dim"], grid: tuple[int, int]
) -> Float[Any, "1 {1+grid[0]*grid[1]} dim"]:
    """Fit a learned position embedding of a square grid to another grid, as DINO does.

    The class token's comes first and stays. A grid is its rows and columns.
    """
    dim = position.shape[-1]
    side = math.isqrt(position.shape[1] - 1)
    if grid == (side, side):
        return position
    down, across = (bicubic_matrix(side, n).astype(position.dtype) for n in grid)
    # At the default precision a GPU rounds the embedding to 10 bits.
    exact = jax.lax.Precision.HIGHEST
    patches = position[0, 1:].reshape(side, side, dim)
    patches = jnp.einsum("ai,ijd->ajd", down, patches, precision=exact)
    patches = jnp.einsum("bj,ajd->abd", across, patches, precision=exact)
    return jnp.concatenate([position[:, :1], patches.reshape(1, -1, dim)], axis=1)


def bicubic_matrix(
    source: int, target: int
) -> Float64[np.ndarray, "{target} {source}"]:
    """Weights of PyTorch's bicubic interpolation without antialiasing.

    DINO asks for the scale (target + 0.1) / source, against rounding down to one row
    less. PyTorch samples at that scale too, so the 0.1 is part of the result.
    """
    centres = (np.arange(target) + 0.5) * source / (target + 0.1) - 0.5
    taps = np.floor(centres)[:, None] + np.arange(-1, 3)
    t = np.abs(centres[:, None] - taps)
    a = -0.75  # PyTorch's, of Keys' family of cubics
    near = ((a + 2) * t - (a + 3)) * t**2 + 1
    far = a * (((t - 5) * t + 8) * t - 4)
    weights = np.where(t <= 1, near, far)
    matrix = np.zeros((target, source))
    # Beyond an edge its last row is repeated: several taps can meet there.
    columns = np.clip(taps, 0, source - 1).astype(int)
    np.add.at(matrix, (np.arange(target)[:, None], columns), weights)
    return matrix
