"""Crop, antialiased resize and flip as two interpolation matrices an image.

Resampling is separable and linear: out = A_y . image . A_x^T with one small matrix for
each side of each image. That turns the gathers of a crop into batched matrix products,
at which accelerators are best, and flip and the division by 255 cost nothing.
"""

import jax
import jax.numpy as jnp
from jax import lax


def interpolation_matrix(
    start: jax.Array, length: jax.Array, source: int, size: int, kernel: str
) -> jax.Array:
    """Weights that resize pixels [start, start + length) of `source` ones to `size`.

    The same weights as PIL's and torchvision's antialiased resize of the crop: the
    kernel is widened by length / size when shrinking, no pixel outside of the crop has
    a weight, and each row sums to 1.

    Args:
        start: int32 [N], first pixel of the crop.
        length: int32 [N], its number of pixels, at least 1.
        source: side of the input.
        size: side of the output.
        kernel: "bilinear", or "bicubic" (a = -0.5).

    Returns:
        float32 [N, size, source].
    """
    length, start = length[:, None, None], start[:, None, None]
    pixel = 2 * (jnp.arange(source) - start) + 1  # centres, in half pixels of the crop
    out = 2 * jnp.arange(size)[:, None] + 1
    # In integers up to here: the difference of two float32 positions loses digits.
    offset = jnp.abs(pixel * size - out * length).astype(jnp.float32)
    weight = _KERNELS[kernel](offset / (2 * jnp.maximum(length, size)))
    weight = jnp.where((pixel > 0) & (pixel < 2 * length), weight, 0.0)
    return weight / jnp.sum(weight, axis=-1, keepdims=True)


def _bilinear(x: jax.Array) -> jax.Array:
    return jnp.maximum(0.0, 1.0 - x)


def _bicubic(x: jax.Array) -> jax.Array:
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return jnp.where(x < 1.0, near, jnp.where(x < 2.0, far, 0.0))


_KERNELS = {"bilinear": _bilinear, "bicubic": _bicubic}


def crop_resize(
    images: jax.Array,
    box: jax.Array,
    size: int,
    *,
    flip: jax.Array | None = None,
    interpolation: str = "bilinear",
) -> jax.Array:
    """Crops, resizes (antialiased) and flips, each image by its own numbers.

    Args:
        images: uint8 [N, H, W, 3].
        box: int32 [N, 4]: top, left, height, width, inside of the image.
        size: side of the output.
        flip: bool [N], true where left and right change places; None: nowhere.
        interpolation: "bilinear" or "bicubic".

    Returns:
        float32 [N, 3, size, size] in [0, 1].
    """
    _, height, width, _ = images.shape
    top, left, h, w = jnp.moveaxis(box, 1, 0)
    rows = interpolation_matrix(top, h, height, size, interpolation)
    columns = interpolation_matrix(left, w, width, size, interpolation)
    if flip is not None:
        columns = jnp.where(flip[:, None, None], columns[:, ::-1], columns)
    return _resample(images, rows, columns, interpolation)


def resize(images: jax.Array, size: int, interpolation: str = "bilinear") -> jax.Array:
    """Resizes whole images, uint8 [N, H, W, 3], to float32 [N, 3, size, size]."""
    n, height, width, _ = images.shape
    if (height, width) == (size, size):
        return jnp.moveaxis(images, -1, 1).astype(jnp.float32) / 255.0
    box = jnp.tile(jnp.array([[0, 0, height, width]], jnp.int32), (n, 1))
    return crop_resize(images, box, size, interpolation=interpolation)


def _resample(
    images: jax.Array, rows: jax.Array, columns: jax.Array, interpolation: str
) -> jax.Array:
    """rows . image . columns^T / 255 for each channel: float32 [N, 3, size, size]."""
    n, _, width, channels = images.shape
    size = rows.shape[1]
    # Both products have the shape (channel and other side) x side: three times as tall
    # as a product a channel, and XLA on a CPU does these three to five times faster.
    exact = lax.Precision.HIGHEST  # bfloat16 errs by half a gray level
    x = jnp.einsum("nhwc,nyh->nwcy", images.astype(jnp.float32), rows, precision=exact)
    x = jnp.transpose(x, (0, 2, 3, 1)).reshape(n, channels * size, width)
    x = jnp.einsum("naw,nxw->nax", x, columns / 255.0, precision=exact)
    x = x.reshape(n, channels, size, size)
    return jnp.clip(x, 0.0, 1.0) if interpolation == "bicubic" else x
