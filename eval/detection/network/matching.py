"""Match boxes with objects, and sample the boxes of a loss."""

import jax
import jax.numpy as jnp

FOREGROUND, BACKGROUND, IGNORED = 1, 0, -1


def match(
    iou: jax.Array, valid: jax.Array, low: float, high: float, allow_low_quality: bool
) -> tuple[jax.Array, jax.Array]:
    """Give each of N boxes the object that it overlaps most, by its IoU [G, N] with G objects.

    Those not `valid`, bool [G], are padding. An IoU below `low` makes a box background,
    `high` makes it foreground; what is between is ignored. With `allow_low_quality` boxes that
    overlap an object more than all others do are foreground, too, however little that is. They
    keep the object that they themselves overlap most.

    Returns:
        int32 [N], the object; and int32 [N], 1 for foreground, 0 for background, -1 for
        ignored. Without objects all is background, of object 0.
    """
    iou = jnp.where(valid[:, None], iou, -1.0)
    which, best = jnp.argmax(iou, axis=0), jnp.max(iou, axis=0)
    kind = jnp.where(best < low, BACKGROUND, IGNORED)
    kind = jnp.where(best >= high, FOREGROUND, kind)
    if allow_low_quality:
        most = jnp.max(iou, axis=1, keepdims=True)
        kind = jnp.where(jnp.any((iou == most) & (most > 0), axis=0), FOREGROUND, kind)
    return which.astype(jnp.int32), kind.astype(jnp.int32)


def sample(
    key: jax.Array, kind: jax.Array, count: int, fraction: float
) -> tuple[jax.Array, jax.Array]:
    """Draw boxes for a loss, without replacement, by their kind int32 [N] from `match`.

    `fraction` of them at most is foreground; background fills up.

    Returns:
        int32 [count], numbers of boxes, foreground first; and int32 [count], their kind.
        Where there are too few boxes of both kinds they come again, as ignored.
    """
    draw = jax.random.uniform(key, kind.shape)
    chosen, counts = [], []
    for which in (FOREGROUND, BACKGROUND):
        order = jnp.where(kind == which, draw, -1.0)
        # More than N cannot be asked for: the rest is never used.
        top = jax.lax.top_k(order, min(count, len(kind)))[1]
        chosen.append(jnp.resize(top, (count,)))
        counts.append(jnp.sum(kind == which))
    foreground = jnp.minimum(counts[0], int(count * fraction))
    total = foreground + jnp.minimum(counts[1], count - foreground)
    slot = jnp.arange(count)
    place = slot % jnp.maximum(total, 1)
    is_foreground = place < foreground
    index = jnp.where(is_foreground, chosen[0][place], chosen[1][place - foreground])
    drawn = jnp.where(is_foreground, FOREGROUND, BACKGROUND)
    return index, jnp.where(slot < total, drawn, IGNORED)
