"""Crop, antialiased resize and flip as two interpolation matrices for each image.

Resampling is separable and linear: out = A_y . image . A_x^T with one small matrix for
each side of each image. That turns the gathers of a crop into batched matrix products,
at which accelerators are best, and flip and the division by 255 cost nothing.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float32, Int32, UInt8

Images = UInt8[Array | np.ndarray, "n height width 3"]


def interpolation_matrix(
    start: Int32[Array, " n"],
    length: Int32[Array, " n"],
    source: int,
    size: int,
    kernel: str,
) -> Float32[Array, "n {size} {source}"]:
    """Weights that resize pixels [start, start + length) of `source` ones to `size`.

    The same weights as PIL's and torchvision's antialiased resize of the crop: the
    kernel is widened by length / size when shrinking, no pixel outside the crop has
    a weight, and each row sums to 1.

    Args:
        start: first pixel of the crop.
        length: its number of pixels, at least 1.
        source: side of the input.
        size: side of the output.
        kernel: "bilinear", or "bicubic" (a = -0.5).

    Returns:
        One matrix an image.
    """
    length, start = length[:, None, None], start[:, None, None]
    pixel = 2 * (jnp.arange(source) - start) + 1  # centres, in half pixels of the crop
    out = 2 * jnp.arange(size)[:, None] + 1
    # In integers up to here: the difference of two float32 positions loses digits.
    offset = jnp.abs(pixel * size - out * length).astype(jnp.float32)
    weight = _KERNELS[kernel](offset / (2 * jnp.maximum(length, size)))
    weight = jnp.where((pixel > 0) & (pixel < 2 * length), weight, 0.0)
    return weight / jnp.sum(weight, axis=-1, keepdims=True)


def _bilinear(x: Array) -> Array:
    return jnp.maximum(0.0, 1.0 - x)


def _bicubic(x: Array) -> Array:
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return jnp.where(x < 1.0, near, jnp.where(x < 2.0, far, 0.0))


_KERNELS = {"bilinear": _bilinear, "bicubic": _bicubic}


def crop_resize(
    images: Images,
    box: Int32[Array, "n 4"],
    size: int,
    *,
    flip: Bool[Array, " n"] | None = None,
    interpolation: str = "bilinear",
) -> Float32[Array, "n 3 {size} {size}"]:
    """Crops, resizes (antialiased) and flips, each image by its own numbers.

    Args:
        images: values from 0 to 255.
        box: top, left, height, width in pixels, inside the image.
        size: side of the output in pixels.
        flip: true where left and right change places; None: nowhere.
        interpolation: "bilinear" or "bicubic".

    Returns:
        Planar images, values in [0, 1].
    """
    n, height, width, channels = images.shape
    top, left, h, w = jnp.moveaxis(box, 1, 0)
    rows = interpolation_matrix(top, h, height, size, interpolation)
    columns = interpolation_matrix(left, w, width, size, interpolation)
    if flip is not None:
        columns = jnp.where(flip[:, None, None], columns[:, ::-1], columns)
    # Both products have the shape (channel and other side) x side: three times as tall
    # as a product a channel, and XLA on a CPU does these three to five times faster.
    exact = lax.Precision.HIGHEST  # bfloat16 errs by half a gray level
    x = jnp.einsum("nhwc,nyh->nwcy", images.astype(jnp.float32), rows, precision=exact)
    x = jnp.transpose(x, (0, 2, 3, 1)).reshape(n, channels * size, width)
    x = jnp.einsum("naw,nxw->nax", x, columns / 255.0, precision=exact)
    x = x.reshape(n, channels, size, size)
    return jnp.clip(x, 0.0, 1.0) if interpolation == "bicubic" else x


def resize(
    images: Images, size: int, interpolation: str = "bilinear"
) -> Float32[Array, "n 3 {size} {size}"]:
    """Resizes whole images, to planar ones with values in [0, 1]."""
    n, height, width, _ = images.shape
    if (height, width) == (size, size):
        return jnp.moveaxis(images, -1, 1).astype(jnp.float32) / 255.0
    box = jnp.tile(jnp.array([[0, 0, height, width]], jnp.int32), (n, 1))
    return crop_resize(images, box, size, interpolation=interpolation)
