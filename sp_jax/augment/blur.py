"""Gaussian blur: a banded (Toeplitz) matrix for each image, applied from both sides."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float32


def blur_matrix(
    sigma: Float32[Array, " n"], apply: Bool[Array, " n"], size: int, taps: int
) -> Float32[Array, "n {size} {size}"]:
    """Matrices that blur a line of `size` pixels, mirrored at its ends.

    Args:
        sigma: standard deviation in pixels.
        apply: the identity where false.
        size: pixels of the line.
        taps: odd number of taps, below 2 * size.

    Returns:
        One matrix an image; each row sums to 1.
    """
    radius = taps // 2
    distance = np.arange(radius + 1, dtype=np.float32)
    weight = jnp.exp(-0.5 * (distance / sigma[:, None]) ** 2)
    weight = weight / (weight[:, :1] + 2.0 * jnp.sum(weight[:, 1:], 1, keepdims=True))
    weight = jnp.where(apply[:, None], weight, distance == 0)
    # Where each tap lands is known beforehand; taps at one distance weigh the same.
    lands = np.zeros((radius + 1, size, size), np.float32)
    here = np.arange(size)
    for offset in range(-radius, radius + 1):
        there = np.abs(here + offset)
        there = np.where(there >= size, 2 * (size - 1) - there, there)
        lands[abs(offset), here, there] += 1.0
    return jnp.einsum("nk,kij->nij", weight, lands, precision=lax.Precision.HIGHEST)


def gaussian_blur(
    x: Float32[Array, "n 3 size size"],
    sigma: Float32[Array, " n"],
    apply: Bool[Array, " n"],
    taps: int,
) -> Float32[Array, "n 3 size size"]:
    """Blurs as torchvision's `gaussian_blur` does (reflecting at the borders).

    PIL's `GaussianBlur` is another filter (repeated box blurs).

    Args:
        x: planar images.
        sigma: standard deviation in pixels.
        apply: the others stay exactly as they are.
        taps: odd number of taps, below 2 * size.

    Returns:
        The blurred images.
    """
    n, channels, size, _ = x.shape
    matrix = blur_matrix(sigma, apply, size, taps)
    for _ in range(2):
        # The last axis, and then, turned over, the other one.
        x = x.reshape(n, channels * size, size)
        x = jnp.einsum("nab,ncb->nac", x, matrix, precision=lax.Precision.HIGHEST)
        x = x.reshape(n, channels, size, size).swapaxes(2, 3)
    return x
