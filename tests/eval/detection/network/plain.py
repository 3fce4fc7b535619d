"""Faster R-CNN's choices for one image in numpy, float64, with loops, for comparison."""

import numpy as np


def iou(a, b):
    """[N, 4] and [M, 4] to [N, M]."""
    a, b = a.astype(float)[:, None], b.astype(float)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = np.clip(sides, 0, None).prod(-1)
    areas = [(x[..., 2:] - x[..., :2]).prod(-1) for x in (a, b)]
    return common / (areas[0] + areas[1] - common)


def match(boxes, candidates, low, high, rescue):
    """The box of each candidate, and its kind: 1, 0 or -1 (between low and high)."""
    overlap = iou(boxes, candidates)
    best = overlap.max(axis=0)
    kind = np.where(best >= high, 1, np.where(best < low, 0, -1))
    if rescue:  # the best candidates of each box are foreground
        kind[(overlap == overlap.max(axis=1, keepdims=True)).any(axis=0)] = 1
    return overlap.argmax(axis=0), kind


def encode(boxes, anchors, weights=(1, 1, 1, 1)):
    size, anchor_size = boxes[:, 2:] - boxes[:, :2], anchors[:, 2:] - anchors[:, :2]
    shift = (boxes[:, :2] + boxes[:, 2:] - anchors[:, :2] - anchors[:, 2:]) / 2
    deltas = [shift / anchor_size, np.log(size / anchor_size)]
    return np.concatenate(deltas, axis=1) * weights


def decode_and_clip(deltas, anchors, size, weights=(1, 1, 1, 1)):
    deltas = deltas.astype(float) / weights
    anchor_size = anchors[:, 2:] - anchors[:, :2]
    centre = (anchors[:, :2] + anchors[:, 2:]) / 2 + deltas[:, :2] * anchor_size
    half = np.exp(deltas[:, 2:]) * anchor_size / 2
    height, width = size
    limit = [width, height, width, height]
    return np.clip(np.concatenate([centre - half, centre + half], axis=1), 0, limit)


def nms(boxes, scores, threshold):
    """Numbers of the boxes that are kept, in falling order of their scores."""
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        if not kept or iou(boxes[[i]], boxes[kept]).max() <= threshold:
            kept.append(i)
    return np.array(kept, int)


def softmax(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def binary_cross_entropy(logits, labels):
    return np.logaddexp(0, logits) - logits * labels
