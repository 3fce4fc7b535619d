"""RoIAlign against the loop over its definition in float64, and against torchvision."""

import importlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eval.detection.network.roi_align import roi_align
from tests.torchvision_ref import torch

BOXES = np.array(
    [
        [3.0, 5.0, 60.0, 40.0],
        [0.0, 0.0, 160.0, 112.0],  # the whole image
        [17.3, 8.1, 18.0, 9.9],  # within one position
        [-30.0, -20.0, 25.0, 30.0],  # partly outside
        [140.0, 100.0, 200.0, 130.0],
        [400.0, 400.0, 460.0, 430.0],  # all outside
        [50.0, 60.0, 50.0, 60.0],  # degenerate
    ],
    np.float32,
)
INSIDE = slice(0, 3)


def loop(features, boxes, scale, size):
    """The definition: a mean of bilinear samples; 0 beyond 1 outside the map."""
    height, width, channels = features.shape

    def sample(y, x):
        if not (-1 <= y <= height and -1 <= x <= width):
            return np.zeros(channels)
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        top, left = int(y), int(x)
        value = np.zeros(channels)
        for row, a in ((top, top + 1 - y), (min(top + 1, height - 1), y - top)):
            for column, b in (
                (left, left + 1 - x),
                (min(left + 1, width - 1), x - left),
            ):
                value += a * b * features[row, column]
        return value

    out = np.zeros((len(boxes), size, size, channels))
    for r, (x1, y1, x2, y2) in enumerate(boxes.astype(np.float64) * scale - 0.5):
        h, w = (y2 - y1) / size, (x2 - x1) / size
        rows, columns = (math.ceil(bin) for bin in (h, w))
        for p in range(size):
            for q in range(size):
                points = [
                    sample(
                        y1 + (p + (i + 0.5) / rows) * h,
                        x1 + (q + (j + 0.5) / columns) * w,
                    )
                    for i in range(rows)
                    for j in range(columns)
                ]
                out[r, p, q] = np.mean(points, axis=0) if points else 0
    return out


@pytest.mark.parametrize("size", [3, 5])
def test_equals_its_definition(size):
    features = np.random.default_rng(size).normal(size=(7, 10, 2)).astype(np.float32)
    got = roi_align(features, BOXES, 1 / 16, size)
    expected = loop(features.astype(np.float64), BOXES, 1 / 16, size)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_equals_torchvision_inside_of_the_map():
    """Values and gradients; its code in Python does not know about the outside."""
    compiled = importlib.import_module("torchvision.ops.roi_align")._roi_align
    reference = compiled.__wrapped__  # to compile takes half a minute
    rng = np.random.default_rng(0)
    boxes = BOXES[INSIDE]
    features = rng.normal(size=(7, 10, 4)).astype(np.float32)
    cotangent = rng.normal(size=(len(boxes), 3, 3, 4)).astype(np.float32)
    theirs = torch.tensor(features.transpose(2, 0, 1)[None], requires_grad=True)
    rois = torch.tensor(np.concatenate([np.zeros((len(boxes), 1)), boxes], axis=1))
    expected = reference(theirs, rois.float(), 1 / 16, 3, 3, 0, True)
    expected.backward(torch.tensor(cotangent.transpose(0, 3, 1, 2)))
    got, pull = jax.vjp(lambda x: roi_align(x, boxes, 1 / 16, 3), features)
    expected = expected.detach().permute(0, 2, 3, 1)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    expected = theirs.grad[0].permute(1, 2, 0)
    np.testing.assert_allclose(pull(jnp.asarray(cotangent))[0], expected, atol=1e-4)


def test_boxes_get_no_gradient_and_bfloat16_is_close():
    features = np.random.default_rng(0).normal(size=(7, 10, 4)).astype(np.float32)
    gradient = jax.grad(lambda b: roi_align(features, b, 1 / 16, 3).sum())(BOXES)
    np.testing.assert_array_equal(gradient, np.zeros_like(BOXES))
    exact = roi_align(features, BOXES, 1 / 16, 3)
    rough = roi_align(jnp.asarray(features, jnp.bfloat16), BOXES, 1 / 16, 3)
    assert rough.dtype == jnp.bfloat16
    np.testing.assert_allclose(rough.astype(np.float32), exact, atol=0.05)
