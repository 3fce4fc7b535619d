"""Faster R-CNN as pure functions of parameters, state and a batch.

The protocol is Detectron2's R50-C4. Differences: an image with fewer boxes to sample than are
asked for repeats some of them, without weight in the losses, but the head's batch
normalisation sees them; and `Settings.candidates` limits the last suppression.

Source: https://arxiv.org/abs/1506.01497; Detectron2 for what the paper leaves open.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from eval.detection.network import selection
from eval.detection.network.boxes import make_anchors
from eval.detection.network.faster_rcnn import FasterRCNN
from eval.detection.network.losses import box_head_loss, rpn_loss
from eval.detection.network.matching import FOREGROUND
from eval.detection.network.roi_align import roi_align
from eval.detection.network.selection import Settings
from sp_jax.methods.base import Output

PyTree = Any
Colour = tuple[float, float, float]

# RoIs of each image that are cut out of its map at a time. The loop is over parts of the
# RoIs and not over images, so that every device works on its own images.
ROIS_AT_ONCE = 32


class Detector(NamedTuple):
    """A detector, in the form of `sp_jax.methods.Method`.

    A training batch has "image" uint8 [B, H, W, 3], each image in the top left corner;
    "size" int32 [B, 2], its height and width; "boxes" float32 [B, M, 4] in pixels; and
    "label" int32 [B, M], -1 where there is no box.
    """

    # `init(key, images) -> (params, state)`; of the images [B, H, W, 3] only the shape
    # matters. The state is `{"batch_stats": ...}`.
    init: Callable[[jax.Array, jax.Array], tuple[PyTree, PyTree]]
    # `loss(params, state, batch, key) -> (loss, Output)`: the float32 loss of the global
    # batch, without features. All randomness comes from key.
    loss: Callable[..., tuple[jax.Array, Output]]
    # `detect(params, state, images, size) -> (boxes, scores, classes)`: of images uint8
    # [B, H, W, 3] and their sizes int32 [B, 2] boxes float32 [B, K, 4] in pixels, scores
    # float32 [B, K] in falling order and classes int32 [B, K]; where there are fewer than K,
    # the classes are -1 and all else is 0.
    detect: Callable[..., tuple[jax.Array, jax.Array, jax.Array]]


def make_detector(
    backbone: nn.Module, num_classes: int, mean: Colour, std: Colour, settings: Settings
) -> Detector:
    """Make Faster R-CNN around a backbone that has a map (`sp_jax.models.Facts.stride`).

    `num_classes` does without the background. Mean and standard deviation of each channel are
    those of values in [0, 1]. ValueError if the backbone has no map.
    """
    shapes = settings.anchor_sizes, settings.anchor_ratios
    anchors_each = len(shapes[0]) * len(shapes[1])
    network = FasterRCNN(backbone.for_detection(), num_classes, anchors_each)
    stride, bins = network.backbone.stride, network.pool_size
    # Parts [B, n, s, s, C] of maps [B, H, W, C] in rois [B, n, 4].
    crop = jax.vmap(functools.partial(roi_align, scale=1 / stride, size=bins))

    def init(key, images):
        variables = network.init(key, images[:1].astype(jnp.float32), False)
        return variables["params"], {"batch_stats": variables.get("batch_stats", {})}

    def anchors_of(features):
        return jnp.asarray(make_anchors(*features.shape[1:3], stride, *shapes))

    def propose(logits, deltas, size, anchors, train):
        return jax.vmap(lambda *own: selection.propose(*own, anchors, settings, train))(
            logits, deltas, size
        )

    def loss(params, state, batch, key):
        rpn_key, head_key, drop_key = jax.random.split(key, 3)
        size, boxes, label = batch["size"], batch["boxes"], batch["label"]
        count = len(label)

        def in_train_mode(stats, x, method):
            variables = {"params": params, "batch_stats": stats}
            options = {"mutable": ["batch_stats"], "rngs": {"drop_path": drop_key}}
            outputs, new = network.apply(variables, x, True, method=method, **options)
            return outputs, new.get("batch_stats", {})

        with jax.named_scope("features"):
            images = normalize(batch["image"], size, mean, std)
            features, stats = in_train_mode(state["batch_stats"], images, "features")

        with jax.named_scope("rpn"):
            variables = {"params": params}
            logits, deltas = network.apply(variables, features, method="propose")
            anchors = anchors_of(features)
            index, kind, targets = jax.vmap(
                lambda *own: selection.rpn_targets(*own, anchors, settings)
            )(jax.random.split(rpn_key, count), boxes, label)
            chosen = jnp.take_along_axis(logits, index, axis=1)
            moves = jnp.take_along_axis(deltas, index[..., None], axis=1)
            rpn_classes, rpn_boxes = rpn_loss(chosen, moves, kind, targets)

        with jax.named_scope("proposals"):
            proposals, valid = propose(logits, deltas, size, anchors, True)
            targets = jax.vmap(lambda *own: selection.head_targets(*own, settings))(
                jax.random.split(head_key, count), proposals, valid, boxes, label
            )

        with jax.named_scope("head"):
            # The loop adds up the gradients of the map, so they have to be float32.
            wide = features.astype(jnp.float32)
            crops = _by_parts(
                lambda rois: crop(wide.astype(features.dtype), rois), targets.rois
            )
            # Of all images at once: normalisation has to see the whole batch.
            crops = crops.reshape(-1, *crops.shape[2:])
            (logits, deltas), stats = in_train_mode(stats, crops, "classify")
            wanted = targets.kind, targets.classes, targets.deltas
            wanted = [x.reshape(-1, *x.shape[2:]) for x in wanted]
            head_classes, head_boxes = box_head_loss(logits, deltas, *wanted)

        true = jnp.sum(label >= 0)
        metrics = {
            "rpn_classes": rpn_classes,
            "rpn_boxes": rpn_boxes,
            "head_classes": head_classes,
            "head_boxes": head_boxes,
            "foreground": jnp.sum(targets.kind == FOREGROUND) / count,
            "rpn_recall": jnp.sum(targets.found) / jnp.maximum(true, 1),
        }
        total = rpn_classes + rpn_boxes + head_classes + head_boxes
        return total, Output({"batch_stats": stats}, metrics, None)

    def detect(params, state, images, size):
        variables = {"params": params, **state}
        images = normalize(images, size, mean, std)
        features = network.apply(variables, images, False, method="features")
        logits, deltas = network.apply(variables, features, method="propose")
        rois, valid = propose(logits, deltas, size, anchors_of(features), False)

        def classify(rois):
            crops = crop(features, rois)
            flat = crops.reshape(-1, *crops.shape[2:])
            outputs = network.apply(variables, flat, False, method="classify")
            return [x.reshape(*rois.shape[:2], *x.shape[1:]) for x in outputs]

        logits, deltas = _by_parts(classify, rois)
        return jax.vmap(lambda *own: selection.choose_detections(*own, settings))(
            logits, deltas, rois, valid, size
        )

    return Detector(init, loss, detect)


def normalize(images: jax.Array, size: jax.Array, mean: Colour, std: Colour):
    """Normalise images uint8 [B, H, W, 3] to float32; the padding becomes 0, the mean.

    `size` int32 [B, 2] is the height and width of what is in the top left corner; mean and
    standard deviation of each channel are those of values in [0, 1].
    """
    height, width = images.shape[1:3]
    x = (images.astype(jnp.float32) / 255 - np.float32(mean)) / np.float32(std)
    inside = jnp.arange(height) < size[:, :1], jnp.arange(width) < size[:, 1:]
    return jnp.where(inside[0][:, :, None, None] & inside[1][:, None, :, None], x, 0)


def _by_parts(function: Callable[[jax.Array], PyTree], rois: jax.Array) -> PyTree:
    """Arrays [B, R, ...] of RoIs [B, R, 4], by a function of parts [B, n, 4] of them."""
    batch, count = rois.shape[:2]
    n = min(count, ROIS_AT_ONCE)
    parts = -(-count // n)
    rois = jnp.pad(rois, ((0, 0), (0, parts * n - count), (0, 0)))
    outputs = jax.lax.map(function, rois.reshape(batch, parts, n, 4).swapaxes(0, 1))

    def whole(x):
        return x.swapaxes(0, 1).reshape(batch, parts * n, *x.shape[3:])[:, :count]

    return jax.tree.map(whole, outputs)
