"""RoIAlign as two matrix products: exact, and without a scatter in its gradient.

Bilinear interpolation is a product of one factor a row and one a column, and so is the mean
over the samples of a bin. So the rows of a map are combined first, and then its columns. The
gradient of gathered corners would be a scatter, which is slow and has no fixed order on a GPU.
"""

import jax
import jax.numpy as jnp


def roi_align(
    features: jax.Array, boxes: jax.Array, scale: float, size: int
) -> jax.Array:
    """Interpolate the part of a map [H, W, C] inside each box: [R, size, size, C].

    torchvision's `roi_align` with `aligned=True` and adaptive sampling: a bin has as many
    samples in a row and in a column as positions, rounded up; at most what a box as large
    as the map needs. The intermediate array has R * size * W * C numbers: for many boxes
    on a large map go part by part, with `jax.lax.map`. The dtype is that of the features.

    Boxes [R, 4] are in pixels of the image and get no gradient; `scale` is how many positions
    of the map a pixel is, such as 1 / 16.

    Source: He et al. 2017, https://arxiv.org/abs/1703.06870
    """
    boxes = jax.lax.stop_gradient(boxes).astype(jnp.float32) * scale - 0.5
    height, width, _ = features.shape
    rows, columns = (
        _weights(boxes[:, axis], boxes[:, axis + 2], n, size)
        for axis, n in ((1, height), (0, width))
    )

    def product(spec, a, b):
        # The weights in the dtype of the map, so that bfloat16 uses fast products.
        a, wide = a.astype(features.dtype), jnp.promote_types(b.dtype, jnp.float32)
        options = {"precision": "highest", "preferred_element_type": wide}
        return jnp.einsum(spec, a, b, **options).astype(features.dtype)

    return product("rqw,rpwc->rpqc", columns, product("rph,hwc->rpwc", rows, features))


def _weights(start: jax.Array, end: jax.Array, length: int, size: int) -> jax.Array:
    """The share of each of `length` positions in each bin of each box: [R, size, length]."""
    extent = end - start
    most = -(-length // size)
    samples = jnp.clip(jnp.ceil(extent / size), 0, most)
    # [R, size, most]: where the samples are, in positions of the map.
    number = jnp.arange(most)
    inside = (number + 0.5) / jnp.maximum(samples, 1)[:, None]
    bins = jnp.arange(size)[:, None] + inside[:, None, :]
    at = start[:, None, None] + bins * (extent / size)[:, None, None]
    counted = (number < samples[:, None])[:, None, :] & (at >= -1) & (at <= length)
    at = jnp.clip(at, 0, length - 1)
    hat = jnp.maximum(1 - jnp.abs(at[..., None] - jnp.arange(length)), 0)
    share = counted / jnp.maximum(samples, 1)[:, None, None]
    return jnp.sum(hat * share[..., None], axis=2)
