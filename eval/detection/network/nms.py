"""Non-maximum suppression: exact, with static shapes, in memory linear in the boxes."""

import jax
import jax.numpy as jnp

from eval.detection.network.boxes import iou

_BLOCK = 256  # boxes that are decided at a time


def nms(
    boxes: jax.Array,
    scores: jax.Array,
    classes: jax.Array,
    threshold: float,
    count: int,
) -> tuple[jax.Array, jax.Array]:
    """Keep boxes by falling score, without those that overlap a kept one too much.

    Of boxes float32 [N, 4] with scores float32 [N] and classes int32 [N] those of one class
    suppress each other, by an IoU above the threshold. Of equal scores the first counts as
    higher; boxes with -inf are never kept.

    The boxes are decided in blocks; those of a block are compared with all that were kept
    before, and then with each other until nothing changes. It ends as soon as `count` are
    kept. The largest array has N x 256 numbers.

    Returns:
        int32 [count], numbers of the kept boxes by falling score, and bool [count], false
        where there were no more.
    """
    boxes, scores, classes = map(jnp.asarray, (boxes, scores, classes))
    n = len(boxes)
    padded = -(-n // _BLOCK) * _BLOCK
    order = jnp.argsort(-scores, stable=True)
    order = jnp.concatenate([order, jnp.zeros(padded - n, order.dtype)])
    boxes, classes = boxes[order], classes[order]
    valid = (jnp.arange(padded) < n) & (scores[order] > -jnp.inf)
    place = jnp.arange(_BLOCK)

    def overlaps(some, others):
        """Which of some boxes [M] would suppress which of others [K]: bool [M, K]."""
        (one, one_class), (two, two_class) = some, others
        return (iou(one, two) > threshold) & (one_class[:, None] == two_class[None])

    def body(carry):
        start, kept, total = carry
        *block, alive = (
            jax.lax.dynamic_slice_in_dim(x, start, _BLOCK)
            for x in (boxes, classes, valid)
        )
        # Nothing behind the block is kept yet.
        before = jnp.any(overlaps((boxes, classes), block) & kept[:, None], axis=0)
        alive &= ~before
        inside = overlaps(block, block) & (place[:, None] < place[None])

        def again(state):
            previous, _ = state
            new = alive & ~jnp.any(inside & previous[:, None], axis=0)
            return new, jnp.any(new != previous)

        # After i rounds the first i are right, and mostly all much earlier.
        new, _ = jax.lax.while_loop(lambda s: s[1], again, (alive, jnp.bool_(True)))
        kept = jax.lax.dynamic_update_slice_in_dim(kept, new, start, axis=0)
        return start + _BLOCK, kept, total + jnp.sum(new)

    def more(carry):
        start, _, total = carry
        return (start < padded) & (total < count)

    begin = (jnp.int32(0), jnp.zeros(padded, bool), jnp.int32(0))
    _, kept, total = jax.lax.while_loop(more, body, begin)
    (found,) = jnp.nonzero(kept, size=count, fill_value=0)
    return order[found].astype(jnp.int32), jnp.arange(count) < total
