"""Non-maximum suppression against the plain loop over numpy arrays."""

import jax
import numpy as np
import pytest

from eval.detection.network import nms
from tests.eval.detection.network.test_parts import iou_loop, random_boxes


def greedy(boxes, scores, classes, threshold, count):
    iou = iou_loop(boxes, boxes)
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        if scores[i] == -np.inf or len(kept) == count:
            break
        if all(iou[i, j] <= threshold or classes[i] != classes[j] for j in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize(
    "n, count, threshold",
    [(300, 300, 0.3), (300, 20, 0.7), (256, 40, 0.5), (5, 9, 0.5)],
)
def test_equals_the_greedy_loop(n, count, threshold):
    rng = np.random.default_rng(n + count)
    boxes = random_boxes(rng, n, side=60.0)
    scores = rng.integers(0, 50, n).astype(np.float32)  # with ties
    scores[rng.random(n) < 0.1] = -np.inf
    classes = rng.integers(0, 3, n).astype(np.int32)
    for labels in (np.zeros(n, np.int32), classes):
        index, valid = jax.jit(nms.nms, static_argnums=(3, 4))(
            boxes, scores, labels, threshold, count
        )
        expected = greedy(boxes, scores, labels, threshold, count)
        assert index.shape == valid.shape == (count,)
        assert np.sum(valid) == len(expected)
        np.testing.assert_array_equal(index[: len(expected)], expected)
    assert not np.any(valid[len(expected) :])


def test_chains_and_batches():
    """Each box overlaps the next: every second stays. In a batch, by vmap."""
    left = 4.0 * np.arange(600)
    chain = np.stack([left, left * 0, left + 9, left * 0 + 9], axis=1).astype(
        np.float32
    )
    scores = -np.arange(600, dtype=np.float32)
    batch = np.stack([chain, chain[::-1]])
    alike = np.zeros(600, np.int32)
    run = jax.jit(jax.vmap(lambda b: nms.nms(b, scores, alike, 0.3, 400)))
    index, valid = run(batch)
    assert valid.sum() == 600
    for one in index:
        np.testing.assert_array_equal(one[:300], np.arange(0, 600, 2))
