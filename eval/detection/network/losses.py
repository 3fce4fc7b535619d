"""The losses of Faster R-CNN, normalised as Detectron2 does.

Source: Ren et al. 2015, https://arxiv.org/abs/1506.01497
"""

import jax
import jax.numpy as jnp
import optax

from eval.detection.network.matching import FOREGROUND, IGNORED


def rpn_loss(
    logits: jax.Array, deltas: jax.Array, kind: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Losses of the sampled anchors of all images, from logits [..., n] of being an object.

    `kind` int32 [..., n] is that of `matching`; the float32 deltas, and as targets those of the
    matched objects, are [..., n, 4].

    Returns:
        Cross-entropy of the objectness, and L1 of the foreground's deltas: sums over the
        number of samples, with what is ignored.
    """
    foreground = kind == FOREGROUND
    is_object = foreground.astype(logits.dtype)
    entropy = optax.sigmoid_binary_cross_entropy(logits, is_object)
    entropy = jnp.where(kind == IGNORED, 0, entropy)
    boxes = _box_loss(deltas, targets, foreground)
    return jnp.sum(entropy) / kind.size, boxes / kind.size


def box_head_loss(
    logits: jax.Array,
    deltas: jax.Array,
    kind: jax.Array,
    classes: jax.Array,
    targets: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Losses of the sampled proposals of all images.

    Float32 logits [R, K + 1] are of K classes and the background, deltas [R, K, 4] of each
    class; `kind` int32 [R] is that of `matching`; classes int32 [R] and targets float32 [R, 4],
    which are deltas, are the matched objects', and count for the foreground only.

    Returns:
        Cross-entropy of the classes, and L1 of the deltas of the foreground's class.
        Both are sums over the number of proposals that are not ignored.
    """
    count = jnp.maximum(jnp.sum(kind != IGNORED), 1)
    foreground = kind == FOREGROUND
    background = logits.shape[-1] - 1
    wanted = jnp.where(foreground, classes, background)
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, wanted)
    entropy = jnp.where(kind == IGNORED, 0, entropy)
    own = jnp.where(foreground, classes, 0)
    # A product instead of a gather: its gradient is no scatter.
    one_hot = jax.nn.one_hot(own, background, dtype=deltas.dtype)
    chosen = jnp.einsum("rk,rkd->rd", one_hot, deltas, precision="highest")
    return jnp.sum(entropy) / count, _box_loss(chosen, targets, foreground) / count


def _box_loss(deltas, targets, foreground) -> jax.Array:
    """The sum of |deltas - targets|: Detectron2's R50-C4 does not smooth it."""
    # Selected before the loss: a target of padding may be large, and its gradient as well.
    targets = jnp.where(foreground[..., None], targets, 0)
    deltas = jnp.where(foreground[..., None], deltas, 0)
    return jnp.sum(jnp.abs(deltas - targets))
