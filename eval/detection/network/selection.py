"""Which boxes of an image are matched, sampled and kept: the choices of Faster R-CNN.

All functions are for one image; sizes are fixed, and what is missing is masked.

Source: https://arxiv.org/abs/1506.01497; Detectron2 for what the paper leaves open.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from eval.detection.network.boxes import area, clip, decode, encode, iou
from eval.detection.network.matching import IGNORED, match, sample
from eval.detection.network.nms import nms

# Deltas of the head are multiplied by these, so that they have about unit variance.
WEIGHTS = (10.0, 10.0, 5.0, 5.0)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is matched, sampled and kept. The defaults are Detectron2's for R50-C4.

    Attributes:
        anchor_sizes: square roots of the areas of the anchors, in pixels.
        anchor_ratios: height over width of the anchors.
        rpn_iou: an anchor whose largest IoU with a box is below the first is background,
            one from the second on foreground; it is ignored between them.
        rpn_samples: anchors of each image in the loss of the proposals.
        rpn_foreground: largest share of foreground among them.
        rpn_nms_iou: of two proposals that overlap by more, the better one is kept.
        train_candidates: best anchors of each image, before the suppression.
        train_proposals: proposals of each image that are kept after it.
        test_candidates: the same in testing.
        test_proposals: the same in testing.
        head_iou: a proposal with at least this IoU with a box is foreground.
        head_samples: proposals of each image in the loss of the head. The true boxes are
            among those it chooses from.
        head_foreground: largest share of foreground among them.
        min_score: detections have a larger one.
        nms_iou: of two detections of a class that overlap by more, the better one is kept.
        candidates: best pairs of box and class of each image that go into this
            suppression. Detectron2 has no limit, but here sizes are fixed. With four for
            each proposal it is exact unless more have a score above `min_score`; the
            worst ones are then lost, and they matter only where fewer than `detections`
            of the others are kept.
        detections: best detections of each image that are kept.

    Raises:
        ValueError: a number cannot be what its name says.
    """

    anchor_sizes: tuple[float, ...] = (32, 64, 128, 256, 512)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rpn_iou: tuple[float, float] = (0.3, 0.7)
    rpn_samples: int = 256
    rpn_foreground: float = 0.5
    rpn_nms_iou: float = 0.7
    train_candidates: int = 12000
    train_proposals: int = 2000
    test_candidates: int = 6000
    test_proposals: int = 1000
    head_iou: float = 0.5
    head_samples: int = 512
    head_foreground: float = 0.25
    min_score: float = 0.05
    nms_iou: float = 0.5
    candidates: int = 4000
    detections: int = 100

    def __post_init__(self):
        """Check the numbers, so that an error comes where they were written."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            name = f"{field.name} is {value!r}: give"
            if field.type is int and not (isinstance(value, int) and value > 0):
                raise ValueError(f"{name} a whole number above 0.")
            if field.type is float and not 0 <= value <= 1:
                raise ValueError(f"{name} a number from 0 to 1.")
        if not 0 <= self.rpn_iou[0] <= self.rpn_iou[1] <= 1:
            raise ValueError(
                f"rpn_iou is {self.rpn_iou}: give two rising numbers from 0 to 1."
            )
        for name in ("anchor_sizes", "anchor_ratios"):
            value = getattr(self, name)
            if not value or min(value) <= 0:
                raise ValueError(f"{name} is {value}: give numbers above 0.")


def propose(
    logits: jax.Array,
    deltas: jax.Array,
    size: jax.Array,
    anchors: jax.Array,
    settings: Settings,
    train: bool,
) -> tuple[jax.Array, jax.Array]:
    """The best boxes around the anchors of an image, none much like a better one.

    Args:
        logits: float32 [N], of being an object.
        deltas: float32 [N, 4].
        size: height and width of the image, to which the proposals are clipped.
        anchors: float32 [N, 4].
        settings: see `Settings`.
        train: take the numbers for training.

    Returns:
        Boxes float32 [P, 4], the best first, and bool [P]: which of them there are. No
        gradient flows through them.
    """
    candidates, count = (
        (settings.train_candidates, settings.train_proposals)
        if train
        else (settings.test_candidates, settings.test_proposals)
    )
    candidates = min(candidates, len(logits))
    logits, deltas = jax.lax.stop_gradient((logits, deltas))
    scores, index = jax.lax.top_k(logits, candidates)
    boxes = clip(decode(deltas[index], anchors[index]), size)
    # What lies outside of the image is clipped to nothing.
    scores = jnp.where(area(boxes) > 0, scores, -jnp.inf)
    alike = jnp.zeros(candidates, jnp.int32)  # all of one class
    kept, valid = nms(
        boxes, scores, alike, settings.rpn_nms_iou, min(count, candidates)
    )
    return jnp.where(valid[:, None], boxes[kept], 0), valid


def rpn_targets(
    key: jax.Array,
    boxes: jax.Array,
    label: jax.Array,
    anchors: jax.Array,
    settings: Settings,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A sample of the anchors of an image, and what the network should say of them.

    Args:
        key: a random key.
        boxes: true boxes, float32 [M, 4].
        label: int32 [M]; -1 where there is no box.
        anchors: float32 [N, 4].
        settings: see `Settings`.

    Returns:
        Numbers of the anchors int32 [S]; their kind int32 [S]: 1 foreground, 0 background,
        -1 without weight; deltas float32 [S, 4], which count for the foreground.
    """
    which, kind = match(iou(boxes, anchors), label >= 0, *settings.rpn_iou, True)
    index, kind = sample(key, kind, settings.rpn_samples, settings.rpn_foreground)
    return index, kind, encode(boxes[which[index]], anchors[index])


class HeadTargets(NamedTuple):
    """A sample of S proposals of an image, and what the head should say of them.

    Attributes:
        rois: the proposals, float32 [S, 4].
        kind: int32 [S]: 1 foreground, 0 background, -1 without weight.
        classes: int32 [S], which count for the foreground.
        deltas: float32 [S, 4], which count for the foreground.
        found: float32, number of true boxes that a proposal matches.
    """

    rois: jax.Array
    kind: jax.Array
    classes: jax.Array
    deltas: jax.Array
    found: jax.Array


def head_targets(
    key: jax.Array,
    proposals: jax.Array,
    valid: jax.Array,
    boxes: jax.Array,
    label: jax.Array,
    settings: Settings,
) -> HeadTargets:
    """Sample the proposals of an image, and its true boxes, for the head.

    Args:
        key: a random key.
        proposals: float32 [P, 4].
        valid: bool [P]: which of them there are.
        boxes: true boxes, float32 [M, 4].
        label: int32 [M]; -1 where there is no box.
        settings: see `Settings`.
    """
    true = label >= 0
    rois = jnp.concatenate([proposals, boxes])
    overlap = iou(boxes, rois)
    which, kind = match(overlap, true, settings.head_iou, settings.head_iou, False)
    kind = jnp.where(jnp.concatenate([valid, true]), kind, IGNORED)
    hit = (overlap[:, : len(proposals)] >= settings.head_iou) & valid
    found = jnp.sum(hit.any(axis=1) & true, dtype=jnp.float32)
    index, kind = sample(key, kind, settings.head_samples, settings.head_foreground)
    rois, which = rois[index], which[index]
    deltas = encode(boxes[which], rois, WEIGHTS)
    return HeadTargets(rois, kind, label[which], deltas, found)


def choose_detections(
    logits: jax.Array,
    deltas: jax.Array,
    rois: jax.Array,
    valid: jax.Array,
    size: jax.Array,
    settings: Settings,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The detections of an image, from what the head says of its proposals.

    Args:
        logits: float32 [P, C + 1]; the background's is the last.
        deltas: float32 [P, C, 4].
        rois: the proposals, float32 [P, 4].
        valid: bool [P]: which of them there are.
        size: height and width of the image, to which the boxes are clipped.
        settings: see `Settings`.

    Returns:
        Boxes float32 [K, 4], scores float32 [K] and classes int32 [K], as
        `Detector.detect`.
    """
    classes = deltas.shape[1]
    scores = jax.nn.softmax(logits)[:, :-1]
    boxes = clip(decode(deltas, rois[:, None], WEIGHTS), size)
    possible = (scores > settings.min_score) & (area(boxes) > 0) & valid[:, None]
    scores = jnp.where(possible, scores, -jnp.inf).reshape(-1)
    scores, index = jax.lax.top_k(scores, min(settings.candidates, len(scores)))
    boxes, label = boxes.reshape(-1, 4)[index], index % classes
    kept, valid = nms(
        boxes, scores, label, settings.nms_iou, min(settings.detections, len(scores))
    )
    return (
        jnp.where(valid[:, None], boxes[kept], 0),
        jnp.where(valid, scores[kept], 0),
        jnp.where(valid, label[kept], -1),
    )
