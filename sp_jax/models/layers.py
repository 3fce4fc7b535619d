"""Convolution, max-pooling and normalisations with PyTorch's conventions.

Weights trained here can be moved to torchvision and back, so padding is explicit (flax's
"SAME" pads strided convolutions on one side only) and the running variance is unbiased.
Each layer also avoids slow paths of XLA on a CPU; the comments say which.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

# torchvision's choice for ResNets: He et al. 2015, https://arxiv.org/abs/1502.01852
kernel_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def at_least_float32(x: Float[Any, " *shape"]) -> Float[Any, " *shape"]:
    """Widen x to float32 for sums over many elements; float64 stays as it is."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class Conv(nn.Module):
    """Square 2-D convolution without bias.

    Attributes:
        features: number of output channels.
        kernel: side of the kernel in pixels.
        stride: step in pixels.
        padding: zeros added on each side; `kernel // 2` if None, as PyTorch's ResNets.
        dtype: compute dtype; parameters are float32.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    padding: int | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Any, "n height width channels"]
    ) -> Float[Array, "n out_height out_width {self.features}"]:
        """Convolve x."""
        k, s = self.kernel, self.stride
        pad = k // 2 if self.padding is None else self.padding
        w = self.param("kernel", kernel_init, (k, k, x.shape[-1], self.features))
        x, w = x.astype(self.dtype), w.astype(self.dtype)
        out_h, out_w = ((n + 2 * pad - k) // s + 1 for n in x.shape[1:3])
        if k > 1 and min(out_h, out_w) < k:
            # XLA swaps the operands of a convolution whose map is smaller than its
            # kernel, and runs a naive loop on a CPU (80 x slower). Gathering the
            # patches makes it one matrix product, which is good on any device.
            x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
            patches = [
                x[:, i : i + s * out_h : s, j : j + s * out_w : s]
                for i in range(k)
                for j in range(k)
            ]
            return jnp.concatenate(patches, axis=-1) @ w.reshape(-1, self.features)
        if k == 1 and pad == 0 and jax.default_backend() == "cpu":
            # XLA makes products of many axes of these. For the gradient of the weights
            # it copies the input transposed there, and computes the sum along all
            # later shortcuts of a ResNet anew in each copy. Rows of a matrix need none.
            x = x[:, ::s, ::s]
            y = x.reshape(-1, x.shape[-1]) @ w[0, 0]
            return y.reshape(*x.shape[:-1], self.features)
        padding, axes = ((pad, pad),) * 2, ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, w, (s, s), padding, dimension_numbers=axes
        )


@jax.custom_vjp
def max_pool(
    x: Float[Array, "n height width channels"],
) -> Float[Array, "n (height+1)//2 (width+1)//2 channels"]:
    """3x3 max-pooling with stride 2 and padding 1.

    Written as the maximum of nine strided slices. The backward pass is by hand: the
    gradient of XLA's `reduce_window` is a select-and-scatter, and that of a chain of
    maxima keeps each link of it; both are slow. As in PyTorch, of equal values the first
    one gets the gradient.
    """
    return _max_pool_forward(x)[0]


def _max_pool_forward(x):
    out_h, out_w = ((n - 1) // 2 + 1 for n in x.shape[1:3])
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    for k in range(9):
        i, j = divmod(k, 3)
        part = padded[:, i : i + 2 * out_h : 2, j : j + 2 * out_w : 2]
        if k == 0:
            y, winner = part, jnp.zeros(part.shape, jnp.int8)
            continue
        larger = (part > y) | jnp.isnan(part)
        y = jnp.where(larger, part, y)
        winner = jnp.where(larger, jnp.int8(k), winner)
    return y, (winner, x)


def _max_pool_backward(residuals, dy):
    winner, x = residuals  # of x only the shape is used: it costs no memory
    (n, height, width, channels), (out_h, out_w) = x.shape, dy.shape[1:3]
    edge = ((0, 0), (0, 1), (0, 1), (0, 0))
    dy = jnp.pad(dy, edge)
    winner = jnp.pad(winner, edge, constant_values=-1)

    def part(i, j):
        """The gradient that pixels at place (i, j) of a window get from that window."""
        rows = slice(int(i == 0), int(i == 0) + out_h)
        columns = slice(int(j == 0), int(j == 0) + out_w)
        won = winner[:, rows, columns] == 3 * i + j
        return jnp.where(won, dy[:, rows, columns], jnp.zeros([], dy.dtype))

    # A pixel of an even row is the middle of one window, one of an odd row the end of
    # one and the start of the next; so for columns. Four kinds of pixel, interleaved.
    even = (part(1, 1), part(1, 0) + part(1, 2))
    odd = (part(0, 1) + part(2, 1), part(0, 0) + part(0, 2) + part(2, 0) + part(2, 2))
    dx = jnp.stack([jnp.stack(even, axis=3), jnp.stack(odd, axis=3)], axis=2)
    dx = dx.reshape(n, 2 * out_h, 2 * out_w, channels)
    return (dx[:, :height, :width],)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def batch_norm(
    x: Float[Any, "n *positions channels"],
    scale: Float[Any, " channels"],
    bias: Float[Any, " channels"],
    eps: float | Array,  # autodiff makes an array of it
    rectify: bool = False,
    groups: int = 1,
) -> tuple[
    Float[Array, "n *positions channels"],
    Float[Array, "{groups} channels"],
    Float[Array, "{groups} channels"],
]:
    """Normalise x by the statistics of all axes but the last.

    Args:
        x: the activations.
        scale: multiplies the normalised x.
        bias: is added to it.
        eps: is added to the variance.
        rectify: set what is below zero to zero, as a rectifier that follows.
        groups: row i belongs to group `i % groups`, and each has statistics of its own.

    Returns:
        y in x's dtype, and the float32 mean and biased variance of each group. No gradient
        flows through the two statistics: they only feed the running averages.

    The backward pass is written by hand: it reads the activations fewer times than the
    one that autodiff derives, and a ResNet is bound by memory.

    The variance is E[x^2] - E[x]^2 in float32, as flax's default. Its relative error stays
    below 2^-20 (1 + (mean / standard deviation)^2): 9e-4 at a ratio of 30, and at 1000 the
    variance is of no use. docs/performance.md says what an exact one would cost.
    """
    return _batch_norm_forward(x, scale, bias, eps, rectify, groups)[0]


def _batch_norm_forward(x, scale, bias, eps, rectify, groups):
    rows = _in_groups(x, groups)
    count = x.size // x.shape[-1] // groups
    total, squares = _two_sums(rows, jnp.square(rows))
    mean = total / count
    # One pass over x; clipped, because the difference can round below zero.
    var = jnp.maximum(squares / count - jnp.square(mean), 0.0)
    inv = jax.lax.rsqrt(var + eps)
    slope = inv * scale
    offset = bias - mean * inv * scale
    y = rows * _spread(slope, rows) + _spread(offset, rows)
    y = jnp.maximum(y, 0.0) if rectify else y
    return (_as(x, y), mean, var), (x, mean, inv, slope, offset)


def _batch_norm_backward(rectify, groups, residuals, cotangents):
    x, *statistics = residuals
    rows, dy = _in_groups(x, groups), _in_groups(cotangents[0], groups)
    mean, inv, slope, offset = (_spread(each, rows) for each in statistics)
    normed = (rows - mean) * inv
    if rectify:
        # From x, which is read here anyhow; y need not be kept.
        dy = jnp.where(rows * slope + offset > 0, dy, 0.0)
    # Into two sums XLA fuses what comes before, such as a rectifier behind a shortcut.
    dbias, dscale = _two_sums(dy, dy * normed, together=rectify)
    count = x.size // x.shape[-1] // groups
    own, along = (_spread(each / count, rows) for each in (dbias, dscale))
    dx = slope * (dy - own - normed * along)
    return _as(x, dx), jnp.sum(dscale, 0), jnp.sum(dbias, 0), None


batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)


def _in_groups(x, groups):
    """Rows [N, ...] as [N / groups, groups, ...], in float32 or wider."""
    return at_least_float32(x).reshape(-1, groups, *x.shape[1:])


def _as(x, rows):
    return rows.reshape(x.shape).astype(x.dtype)


def _spread(each, rows):
    """Numbers [groups, channels], in a shape that broadcasts over rows."""
    return each.reshape(len(each), *[1] * (rows.ndim - 3), -1)


def _two_sums(a, b, together=True):
    """The sums [groups, channels] of a and of b over each group."""
    if a.shape[1] > 1 and a.ndim > 3:
        # The positions first, behind a barrier: XLA would make one sum of both, over axes
        # that are not side by side, and move the whole array to do so.
        a, b = _sum_both(a, b, tuple(range(2, a.ndim - 1)), together)
        a, b = jax.lax.optimization_barrier((a, b))
    return _sum_both(a, b, (0, *range(2, a.ndim - 1)), together)


def _sum_both(a, b, axes, together):
    # XLA sums a large array in two steps: together they are two kernels, apart three. Over
    # several devices it would gather the parts of a pair, where it adds those of a sum.
    one_gpu = jax.default_backend() != "cpu" and jax.device_count() == 1
    if not (together and one_gpu):
        return jnp.sum(a, axes), jnp.sum(b, axes)
    zero = jnp.zeros([], a.dtype)
    return jax.lax.reduce(
        (a, b), (zero, zero), lambda x, y: (x[0] + y[0], x[1] + y[1]), axes
    )


@contextlib.contextmanager
def normalize_apart(groups: int) -> Iterator[set[tuple[str, ...]]]:
    """In this context row i of a batch belongs to group `i % groups` of each `BatchNorm`.

    Yields:
        The paths of the `BatchNorm` that were called, as they are.
    """
    seen = set()

    def intercept(call, args, kwargs, context):
        if isinstance(context.module, BatchNorm) and context.method_name == "__call__":
            seen.add(context.module.path)
            kwargs = {**kwargs, "groups": groups}
        return call(*args, **kwargs)

    with nn.intercept_methods(intercept):
        yield seen


class BatchNorm(nn.Module):
    """Batch normalisation over the global batch (Ioffe & Szegedy 2015).

    The mean is taken over the whole (sharded) array, so under `jax.jit` this is
    synchronised batch normalisation on any number of devices.

    Attributes:
        momentum: share of the old running statistics that is kept; 1 - PyTorch's.
        eps: added to the variance.
        use_scale: learn a scale (gamma).
        use_bias: learn a bias (beta).
        scale_init: initialiser of the scale.
        rectify: set what is below zero to zero: a rectifier that follows, in one backward pass.

    Source: https://arxiv.org/abs/1502.03167
    """

    momentum: float = 0.9
    eps: float = 1e-5
    use_scale: bool = True
    use_bias: bool = True
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    rectify: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Any, "n *positions channels"], train: bool, groups: int = 1
    ) -> Float[Array, "n *positions channels"]:
        """Normalise x; with `train`, update the collection "batch_stats".

        Row i belongs to group `i % groups`. Each group has statistics of its own, and the
        running ones move group by group, as if one came after the other.
        """
        c = x.shape[-1]
        scale, bias = jnp.ones((c,), jnp.float32), jnp.zeros((c,), jnp.float32)
        if self.use_scale:
            scale = self.param("scale", self.scale_init, (c,))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (c,))
        ra_mean = self.variable("batch_stats", "mean", jnp.zeros, (c,))
        ra_var = self.variable("batch_stats", "var", jnp.ones, (c,))
        if not train:
            inv = jax.lax.rsqrt(ra_var.value + self.eps) * scale
            y = at_least_float32(x) * inv + (bias - ra_mean.value * inv)
            y = nn.relu(y) if self.rectify else y
            return y.astype(x.dtype)
        y, means, variances = batch_norm(x, scale, bias, self.eps, self.rectify, groups)
        if self.is_initializing():
            return y
        count, m = x.size // c // groups, self.momentum
        variances *= count / max(count - 1, 1)  # unbiased, as PyTorch stores it
        shares = [(1 - m) * m**later for later in range(groups)][::-1]
        for running, new in ((ra_mean, means), (ra_var, variances)):
            running.value = m**groups * running.value + sum(
                share * one for share, one in zip(shares, new, strict=True)
            )
        return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def layer_norm(
    x: Float[Any, "*batch channels"],
    scale: Float[Any, " channels"],
    bias: Float[Any, " channels"],
    eps: float,
    dtype: DTypeLike,
) -> Float[Array, "*batch channels"]:
    """Normalise each vector of x; the result is in `dtype`, statistics in float32 at least.

    The backward pass is written by hand: it reads x and two numbers of each vector, where
    the one that autodiff derives keeps more, and a ViT is bound by memory.
    """
    return _layer_norm_forward(x, scale, bias, eps, dtype)[0]


def _layer_norm_forward(x, scale, bias, eps, dtype):
    wide = at_least_float32(x)
    mean = jnp.mean(wide, -1, keepdims=True)
    # Not E[x^2] - E[x]^2, which cancels.
    var = jnp.mean(jnp.square(wide - mean), -1, keepdims=True)
    inv = jax.lax.rsqrt(var + eps)
    y = (wide - mean) * inv * scale + bias
    return y.astype(dtype), (x, mean, inv, scale)


def _layer_norm_backward(eps, dtype, residuals, dy):
    *seen, scale = residuals
    # Otherwise XLA finds that the forward pass normalised x, too, and keeps that in float32.
    x, mean, inv = jax.lax.optimization_barrier(seen)
    dy = at_least_float32(dy)
    normed = (at_least_float32(x) - mean) * inv
    axes = tuple(range(x.ndim - 1))
    dscale, dbias = jnp.sum(dy * normed, axes), jnp.sum(dy, axes)
    dy = dy * scale
    along = jnp.mean(dy * normed, -1, keepdims=True)
    dx = inv * (dy - jnp.mean(dy, -1, keepdims=True) - normed * along)
    return dx.astype(x.dtype), dscale, dbias


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


class LayerNorm(nn.Module):
    """Layer normalisation with scale and bias.

    Attributes:
        eps: added to the variance.
        dtype: of the result; parameters are float32.

    Source: https://arxiv.org/abs/1607.06450
    """

    eps: float = 1e-6
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Any, "*batch channels"]
    ) -> Float[Array, "*batch channels"]:
        """Normalise the last axis of x."""
        c = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (c,))
        bias = self.param("bias", nn.initializers.zeros, (c,))
        return layer_norm(x, scale, bias, self.eps, self.dtype)
