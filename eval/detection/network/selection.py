"""Faster R-CNN's choices: the boxes of an image that are matched, sampled and kept.

All functions are for one image of a `size` (height and width), to which boxes are clipped.
Shapes are fixed: of the true `boxes` float32 [M, 4] those are there whose `label` int32 [M] is
not -1; of the `proposals` or `rois` float32 [P, 4] those that are `valid`, bool [P]. `anchors`
are float32 [N, 4]. A `kind` is 1 for foreground, 0 for background, -1 for what has no weight.

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
    """Options for matching, sampling and keeping; the defaults are Detectron2's for R50-C4.

    A number that cannot be what its name says raises ValueError.
    """

    # Square roots of areas, in pixels.
    anchor_sizes: tuple[float, ...] = (32, 64, 128, 256, 512)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height over width
    # An anchor whose largest IoU with a box is below the first is background, one from the
    # second on foreground; it is ignored between them.
    rpn_iou: tuple[float, float] = (0.3, 0.7)
    rpn_samples: int = 256  # anchors of each image in the loss of the proposals
    rpn_foreground: float = 0.5  # largest share of foreground among them
    rpn_nms_iou: float = 0.7  # of two that overlap by more, the better one is kept
    train_candidates: int = 12000  # best anchors of each image, before the suppression
    train_proposals: int = 2000  # proposals of each image that are kept after it
    test_candidates: int = 6000  # the same in testing
    test_proposals: int = 1000
    head_iou: float = 0.5  # a proposal with at least this IoU with a box is foreground
    # Proposals of each image in the loss of the head, drawn from these and the true boxes.
    head_samples: int = 512
    head_foreground: float = 0.25  # largest share of foreground among them
    min_score: float = 0.05  # detections have a larger one
    nms_iou: float = 0.5  # as `rpn_nms_iou`, of two of a class
    # Best pairs of box and class of each image that go into this suppression. Detectron2 has
    # no limit, but here sizes are fixed. With four for each proposal it is exact unless more
    # have a score above `min_score`; the worst ones are then lost, and they matter only
    # where fewer than `detections` of the others are kept.
    candidates: int = 4000
    detections: int = 100  # best ones of each image that are kept

    def __post_init__(self):
        """Check the numbers as soon as they are set."""
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

    From logits float32 [N] of being an object and deltas float32 [N, 4]; `train` takes the
    numbers for training.

    Returns:
        Proposals, the best first, and which are valid. No gradient flows through them.
    """
    candidates, count = settings.test_candidates, settings.test_proposals
    if train:
        candidates, count = settings.train_candidates, settings.train_proposals
    candidates = min(candidates, len(logits))
    count = min(count, candidates)
    logits, deltas = jax.lax.stop_gradient((logits, deltas))
    scores, index = jax.lax.top_k(logits, candidates)
    boxes = clip(decode(deltas[index], anchors[index]), size)
    # What lies outside the image is clipped to nothing.
    scores = jnp.where(area(boxes) > 0, scores, -jnp.inf)
    alike = jnp.zeros(candidates, jnp.int32)  # all of one class
    kept, valid = nms(boxes, scores, alike, settings.rpn_nms_iou, count)
    return jnp.where(valid[:, None], boxes[kept], 0), valid


def rpn_targets(
    key: jax.Array,
    boxes: jax.Array,
    label: jax.Array,
    anchors: jax.Array,
    settings: Settings,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A sample of the anchors of an image, with the targets of the network.

    Returns:
        Numbers of the anchors int32 [S]; their kind int32 [S]; deltas float32 [S, 4], which
        count for the foreground.
    """
    which, kind = match(iou(boxes, anchors), label >= 0, *settings.rpn_iou, True)
    index, kind = sample(key, kind, settings.rpn_samples, settings.rpn_foreground)
    return index, kind, encode(boxes[which[index]], anchors[index])


class HeadTargets(NamedTuple):
    """A sample of S proposals of an image, with the targets of the head."""

    rois: jax.Array  # the proposals, float32 [S, 4]
    kind: jax.Array  # int32 [S]
    classes: jax.Array  # int32 [S], which count for the foreground
    deltas: jax.Array  # float32 [S, 4], which count for the foreground
    found: jax.Array  # float32, number of true boxes that a proposal matches


def head_targets(
    key: jax.Array,
    proposals: jax.Array,
    valid: jax.Array,
    boxes: jax.Array,
    label: jax.Array,
    settings: Settings,
) -> HeadTargets:
    """Sample the proposals of an image, and its true boxes, for the head."""
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
    """The detections of an image, from the head's output for its proposals.

    That is logits float32 [P, C + 1], the background's last, and deltas float32 [P, C, 4].

    Returns:
        Boxes [K, 4], scores [K] and classes [K], as of one image in `Detector.detect`.
    """
    classes = deltas.shape[1]
    scores = jax.nn.softmax(logits)[:, :-1]
    boxes = clip(decode(deltas, rois[:, None], WEIGHTS), size)
    possible = (scores > settings.min_score) & (area(boxes) > 0) & valid[:, None]
    scores = jnp.where(possible, scores, -jnp.inf).reshape(-1)
    scores, index = jax.lax.top_k(scores, min(settings.candidates, len(scores)))
    boxes, label = boxes.reshape(-1, 4)[index], index % classes
    count = min(settings.detections, len(scores))
    kept, valid = nms(boxes, scores, label, settings.nms_iou, count)
    return (
        jnp.where(valid[:, None], boxes[kept], 0),
        jnp.where(valid, scores[kept], 0),
        jnp.where(valid, label[kept], -1),
    )
