"""Boxes, anchors, matching, sampling and losses against torchvision, torch and numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.detection.network import boxes, losses, matching
from tests.torchvision_ref import torch, torchvision

reference = torchvision.models.detection._utils


def random_boxes(rng, n, side=100.0):
    corner = rng.uniform(0, side, (n, 2))
    return np.concatenate(
        [corner, corner + rng.uniform(1, side / 2, (n, 2))], axis=1
    ).astype(np.float32)


def test_coding_equals_torchvision():
    rng = np.random.default_rng(0)
    weights = (10.0, 10.0, 5.0, 5.0)
    coder = reference.BoxCoder(weights)
    objects, around = random_boxes(rng, 50), random_boxes(rng, 50)
    expected = coder.encode_single(torch.tensor(objects), torch.tensor(around))
    got = boxes.encode(objects, around, weights)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(boxes.decode(got, around, weights), objects, atol=1e-3)
    deltas = rng.normal(0, 20, (50, 4)).astype(np.float32)  # beyond the clamp, too
    expected = coder.decode_single(torch.tensor(deltas), torch.tensor(around))
    got = boxes.decode(deltas, around, weights)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-2)


def iou_loop(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    out = np.zeros((len(a), len(b)))
    for i, p in enumerate(a):
        for j, q in enumerate(b):
            w = max(0, min(p[2], q[2]) - max(p[0], q[0]))
            h = max(0, min(p[3], q[3]) - max(p[1], q[1]))
            both = (p[2] - p[0]) * (p[3] - p[1]) + (q[2] - q[0]) * (q[3] - q[1])
            out[i, j] = w * h / (both - w * h)
    return out


def test_iou_equals_numpy():
    rng = np.random.default_rng(1)
    a, b = random_boxes(rng, 20), random_boxes(rng, 30)
    np.testing.assert_allclose(boxes.iou(a, b), iou_loop(a, b), atol=1e-6)
    point = np.array([[5.0, 5.0, 5.0, 5.0], [9.0, 9.0, 3.0, 3.0]], np.float32)
    np.testing.assert_array_equal(boxes.iou(point, point), np.zeros((2, 2)))


coordinates = st.lists(st.floats(-50, 50, width=32), min_size=4, max_size=4)


@settings(max_examples=50, deadline=None)
@given(st.lists(coordinates, min_size=5, max_size=5))
def test_iou_properties(numbers):
    some = np.array(numbers, np.float32)  # also inverted and degenerate ones
    got = np.asarray(boxes.iou(some, some))
    assert np.all((got >= 0) & (got <= 1 + 1e-6))
    np.testing.assert_array_equal(got, got.T)
    sides = some[:, 2:] - some[:, :2]
    proper = np.all(sides > 1e-3, axis=1)
    np.testing.assert_allclose(np.diag(got)[proper], 1, atol=1e-5)


def test_clip():
    box = jnp.array([[-5.0, 3.0, 40.0, 90.0]])
    got = boxes.clip(box, jnp.array([30, 20]))
    np.testing.assert_array_equal(got, [[0, 3, 20, 30]])


def test_anchors_by_hand():
    got = boxes.make_anchors(3, 2, 16, sizes=(32, 64), ratios=(0.5, 1, 2))
    assert got.shape == (3 * 2 * 6, 4) and got.dtype == np.float32
    got = got.reshape(3, 2, 2, 3, 4)
    centre = (got[..., :2] + got[..., 2:]) / 2
    np.testing.assert_allclose(centre[2, 1].reshape(-1, 2), [[16, 32]] * 6, atol=1e-5)
    w, h = np.moveaxis(got[0, 0, ..., 2:] - got[0, 0, ..., :2], -1, 0)
    np.testing.assert_allclose(w * h, [[32**2] * 3, [64**2] * 3], rtol=1e-6)
    np.testing.assert_allclose(h / w, [[0.5, 1, 2]] * 2, rtol=1e-6)
    moved = got[2, 1] - got[0, 0]
    np.testing.assert_allclose(
        moved, np.broadcast_to([16, 32, 16, 32], moved.shape), rtol=1e-6
    )


@pytest.mark.parametrize("low_quality", [True, False])
def test_matching_equals_torchvision(low_quality):
    rng = np.random.default_rng(2)
    objects, around = random_boxes(rng, 6), random_boxes(rng, 200)
    iou = np.asarray(boxes.iou(objects, around))
    matcher = reference.Matcher(0.6, 0.3, allow_low_quality_matches=False)
    plain = matcher(torch.tensor(iou)).numpy()
    kind = np.where(plain == -1, 0, np.where(plain == -2, -1, 1))
    if low_quality:  # torchvision's gives such a box its own best object, too
        matcher = reference.Matcher(0.6, 0.3, allow_low_quality_matches=True)
        more = matcher(torch.tensor(iou)).numpy() >= 0
        assert more.sum() > (kind == 1).sum()
        kind = np.where(more, 1, kind)
    # Padding that overlaps everything is not looked at.
    padded = np.concatenate([np.full((2, 200), 1.0, np.float32), iou])
    valid = np.arange(8) >= 2
    which, got = matching.match(padded, valid, 0.3, 0.6, low_quality)
    np.testing.assert_array_equal(got, kind)
    np.testing.assert_array_equal(which - 2, iou.argmax(0))


def test_without_objects_all_is_background():
    iou = np.full((3, 7), 0.9, np.float32)
    _, kind = matching.match(iou, np.zeros(3, bool), 0.3, 0.7, True)
    np.testing.assert_array_equal(kind, np.zeros(7))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from([-1, 0, 1]), min_size=12, max_size=12),
    st.sampled_from([(8, 0.5), (8, 0.25), (20, 0.5)]),
    st.integers(0, 5),
)
def test_sampling(kinds, how, seed):
    kinds, (count, fraction) = np.array(kinds, np.int32), how
    index, kind = map(
        np.asarray, matching.sample(jax.random.key(seed), kinds, count, fraction)
    )
    assert len(index) == len(kind) == count
    used = kind >= 0
    np.testing.assert_array_equal(kinds[index[used]], kind[used])
    assert len(set(index[used])) == used.sum()
    foreground = min((kinds == 1).sum(), int(count * fraction))
    background = min((kinds == 0).sum(), count - foreground)
    assert (kind == 1).sum() == foreground and (kind == 0).sum() == background
    if used.any():  # what fills up is of the drawn ones
        assert set(index[~used]) <= set(index[used])


def test_sampling_is_uniform():
    kinds = np.zeros(10, np.int32)
    draw = jax.jit(jax.vmap(lambda key: matching.sample(key, kinds, 3, 0.5)[0]))
    counts = np.bincount(np.ravel(draw(jax.random.split(jax.random.key(0), 1000))))
    assert counts.min() > 230 and counts.max() < 370  # 300 expected, deviation 14


def test_losses_equal_torch():
    rng = np.random.default_rng(3)
    functional = torch.nn.functional
    kind = rng.choice([-1, 0, 1], (2, 30)).astype(np.int32)
    logits, deltas, targets = (
        rng.normal(size=(2, 30, *more)).astype(np.float32) for more in ((), (4,), (4,))
    )
    used, foreground = kind >= 0, kind == 1
    entropy = functional.binary_cross_entropy_with_logits(
        torch.tensor(logits[used]),
        torch.tensor(foreground[used]).float(),
        reduction="sum",
    )
    box = functional.l1_loss(
        torch.tensor(deltas[foreground]),
        torch.tensor(targets[foreground]),
        reduction="sum",
    )
    got = losses.rpn_loss(logits, deltas, kind, targets)
    np.testing.assert_allclose(got, [entropy / 60, box / 60], rtol=1e-5)

    kind, targets = kind.reshape(-1), targets.reshape(-1, 4)
    used, foreground = kind >= 0, kind == 1
    logits = rng.normal(size=(60, 4)).astype(np.float32)
    deltas = rng.normal(size=(60, 3, 4)).astype(np.float32)
    classes = rng.integers(0, 3, 60).astype(np.int32)
    wanted = np.where(foreground, classes, 3).astype(np.int64)
    entropy = functional.cross_entropy(
        torch.tensor(logits[used]), torch.tensor(wanted[used])
    )
    own = deltas[np.arange(60), classes][foreground]
    box = np.abs(own - targets[foreground]).sum() / used.sum()
    got = losses.box_head_loss(logits, deltas, kind, classes, targets)
    np.testing.assert_allclose(got, [entropy, box], rtol=1e-5)


def test_losses_are_finite_at_the_extremes():
    """Degenerate and huge objects, and nothing to learn from."""
    around = np.array([[0, 0, 8, 8]] * 4, np.float32)
    objects = np.array(
        [[3, 3, 3, 3], [0, 0, 1e7, 1e7], [5, 5, 1, 1], [-1e6, 0, 1, 1]], np.float32
    )

    @jax.jit
    @jax.value_and_grad
    def loss(raw, kind):
        targets = boxes.encode(objects, around)
        logits, deltas = raw[:, :3], raw[:, 3:11].reshape(4, 2, 4)
        rpn = losses.rpn_loss(logits[:, 0], deltas[:, 0], kind, targets)
        classes = np.zeros(4, np.int32)
        head = losses.box_head_loss(logits, deltas, kind, classes, targets)
        return sum(rpn) + sum(head)

    for kinds in ([-1] * 4, [0] * 4, [1, -1, 0, 1]):
        value, gradient = loss(100 * jnp.ones((4, 11)), np.array(kinds, np.int32))
        assert np.isfinite(value) and np.all(np.isfinite(gradient))
        if 1 not in kinds:
            assert np.all(gradient[:, 3:] == 0)
