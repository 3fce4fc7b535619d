"""NNCLR: the queue of projections and their labels; its loss is in test_siamese.py."""

import jax
import numpy as np
import pytest

from sp_jax.methods.base import Network, forward
from sp_jax.models import MLP, get
from tests.methods.build import apart, make, silent, unit

OPTIONS = {
    "queue_size": 24,
    "hidden_dim": 16,
    "projection_dim": 12,
    "predictor_dim": 20,
}


@pytest.fixture(scope="module")
def nnclr():
    return make("nnclr", **OPTIONS)


def projections(case):
    """Of the first views, by a forward of their own."""
    head = MLP((16, 16, 12), hidden_bias=False, last_bias=False, last_norm="affine")
    network = Network(get("resnet18", width=4), head, MLP((20, 12), hidden_bias=False))
    stats = case.state["batch_stats"]
    run = jax.jit(lambda p: forward(network, p, stats, case.views[:1], joint=False)[0])
    ((_, z, _),) = run(case.params)
    return unit(z)


def test_first_state(nnclr):
    queue = np.asarray(nnclr.state["queue"])
    np.testing.assert_allclose(np.linalg.norm(queue, axis=1), 1, rtol=1e-5)
    assert set(np.asarray(nnclr.state["labels"])) == {-1}
    assert int(nnclr.state["pointer"]) == 0


def test_queue_takes_the_first_views_and_their_labels_and_wraps(nnclr):
    case, first = nnclr, projections(nnclr)
    for step in range(4):
        label = case.label + step
        before = case.state
        (_, out), grads = case.step(step, key=step, label=label)
        place = 8 * (step % 3)
        rows = slice(place, place + 8)
        changed = np.any(np.asarray(out.state["queue"]) != before["queue"], axis=1)
        # The parameters stay, so the same rows come again.
        assert changed[rows].all() and changed.sum() == 8 or step == 3
        np.testing.assert_allclose(out.state["queue"][rows], first, atol=1e-3)
        np.testing.assert_array_equal(out.state["labels"][rows], label)
        assert int(out.state["pointer"]) == (place + 8) % 24
        case = case._replace(state=out.state)
    np.testing.assert_array_equal(case.state["labels"][8:16], case.label + 1)
    assert not silent(grads)


def test_the_loss_sees_the_queue_before_this_batch(nnclr):
    """In the first step no neighbour is of this batch; in the second each finds itself."""
    (_, one), _ = nnclr.step()
    assert float(one.metrics["neighbour_cosine"]) < 0.95
    assert float(one.metrics["neighbour_accuracy"]) == 0
    (_, two), _ = nnclr.step(state=one.state)
    assert float(two.metrics["neighbour_cosine"]) == pytest.approx(1, abs=1e-3)
    assert float(two.metrics["neighbour_accuracy"]) == 1


def test_labels_are_not_learnt_from(nnclr):
    (value, one), grads = nnclr.step()
    (other, two), other_grads = nnclr.step(label=np.full(8, -1, np.int32))
    assert float(value) == float(other) and apart(grads, other_grads) == 0
    assert float(two.metrics["neighbour_accuracy"]) == 0
    assert apart(one.state["queue"], two.state["queue"]) == 0


def test_only_labelled_pairs_count(nnclr):
    """Five of six labelled neighbours get another label in the queue."""
    (_, out), _ = nnclr.step()
    labels = np.asarray(out.state["labels"]).copy()
    labels[[0, 1, 3, 4, 6]] = 50
    (_, again), _ = nnclr.step(state={**out.state, "labels": labels})
    assert float(again.metrics["neighbour_accuracy"]) == pytest.approx(1 / 6)


@pytest.mark.parametrize("size", [20, 0])
def test_a_queue_that_does_not_fit(size):
    with pytest.raises(ValueError, match=f"queue_size {size} must be a multiple .* 8"):
        make("nnclr", queue_size=size)
