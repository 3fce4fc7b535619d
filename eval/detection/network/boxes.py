"""Boxes x1, y1, x2, y2 in pixels: anchors, areas, overlaps, and encoding as deltas.

Coordinates are continuous: a box is x2 - x1 wide.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

# A box is at most 1000 / 16 times as wide as its anchor: Detectron2's bound, which keeps the
# exponential finite.
_MOST = math.log(1000 / 16)
_LEAST = 1e-3  # pixels; sides of degenerate boxes, so that their logarithm is finite

Weights = Sequence[float]


def make_anchors(
    height: int,
    width: int,
    stride: int,
    sizes: Sequence[float],
    ratios: Sequence[float],
) -> np.ndarray:
    """Boxes of several sizes and shapes around the positions of a map [height, width].

    The first position is at 0, 0, the next one `stride` pixels of the image from it. Sizes are
    square roots of the areas, in pixels; ratios are heights over widths.

    Returns:
        float32 [height * width * A, 4] with A = len(sizes) * len(ratios): by row, column,
        size and ratio. Those at a border are partly outside the image.

    Source: Ren et al. 2015, https://arxiv.org/abs/1506.01497

    Example:
        >>> make_anchors(1, 2, 16, sizes=[32], ratios=[1.0]).tolist()
        [[-16.0, -16.0, 16.0, 16.0], [0.0, -16.0, 32.0, 16.0]]
    """
    size, ratio = np.meshgrid(np.float64(sizes), np.float64(ratios), indexing="ij")
    w = (size / np.sqrt(ratio)).reshape(-1)
    h = w * ratio.reshape(-1)
    cell = np.stack([-w, -h, w, h], axis=1) / 2
    y, x = stride * np.indices((height, width))
    place = np.stack([x, y, x, y], axis=-1).reshape(-1, 1, 4)
    return (place + cell).reshape(-1, 4).astype(np.float32)


def area(boxes: jax.Array) -> jax.Array:
    """Area [...] of boxes [..., 4], in square pixels; 0 for inverted ones."""
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def iou(a: jax.Array, b: jax.Array) -> jax.Array:
    """Intersection over union of each box of a [N, 4] with each of b [M, 4]: [N, M].

    In [0, 1]; 0 where both boxes are degenerate.

    Example:
        >>> a = jnp.array([[0.0, 0.0, 2.0, 2.0]])
        >>> b = jnp.array([[1.0, 0.0, 3.0, 2.0]])
        >>> round(float(iou(a, b)[0, 0]), 4)
        0.3333
    """
    low = jnp.maximum(a[:, None, :2], b[None, :, :2])
    high = jnp.minimum(a[:, None, 2:], b[None, :, 2:])
    common = area(jnp.concatenate([low, high], axis=-1))
    union = area(a)[:, None] + area(b)[None] - common
    return jnp.where(union > 0, common / jnp.where(union > 0, union, 1), 0)


def encode(
    boxes: jax.Array, anchors: jax.Array, weights: Weights = (1, 1, 1, 1)
) -> jax.Array:
    """Deltas [..., 4] from which `decode` makes boxes [..., 4] out of anchors [..., 4].

    Those of x, y, width and height are multiplied by the weights.

    Source: Girshick et al. 2014, appendix C, https://arxiv.org/abs/1311.2524
    """
    centre, side = _centred(anchors)
    new_centre, new_side = _centred(boxes)
    shift, growth = (new_centre - centre) / side, jnp.log(new_side / side)
    deltas = jnp.concatenate([shift, growth], axis=-1)
    return deltas * jnp.asarray(weights, deltas.dtype)


def decode(
    deltas: jax.Array, anchors: jax.Array, weights: Weights = (1, 1, 1, 1)
) -> jax.Array:
    """Move anchors [..., 4] by deltas [..., 4]: boxes [..., 4]. See `encode`."""
    centre, side = _centred(anchors)
    deltas = deltas / jnp.asarray(weights, deltas.dtype)
    centre = centre + deltas[..., :2] * side
    half = side * jnp.exp(jnp.minimum(deltas[..., 2:], _MOST)) / 2
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def _centred(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Centre and sides, [..., 2] each."""
    side = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + side / 2, jnp.maximum(side, _LEAST)


def clip(boxes: jax.Array, size: jax.Array) -> jax.Array:
    """Clip boxes [..., 4] to an image of size [2], height and width."""
    height, width = size[0], size[1]
    most = jnp.stack([width, height, width, height]).astype(boxes.dtype)
    return jnp.clip(boxes, 0, most)
