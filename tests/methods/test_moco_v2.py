"""MoCo v2: the queue, the key network's average, and groups of batch normalisation."""

import numpy as np
import pytest

from sp_jax import losses
from tests.methods.build import (
    apart,
    features_by_hand,
    leaves,
    make,
    noisy,
    silent,
    unit,
)

OPTIONS = {
    "queue_size": 24,
    "hidden_dim": 16,
    "projection_dim": 12,
    "momentum": 0.9,
    "temperature": 0.3,
}


@pytest.fixture(scope="module")
def moco():
    return make("moco_v2", bn_groups=2, **OPTIONS)


@pytest.fixture(scope="module")
def plain():
    """One group: the plain batch, in which a shuffle changes nothing."""
    return make("moco_v2", bn_groups=1, **OPTIONS)


def test_head_and_first_state(moco):
    head = moco.params["projector"]
    assert set(head) == {"dense0", "dense1"}  # no normalisation
    assert all("bias" in layer for layer in head.values())
    assert apart(moco.state["key"], moco.params) == 0
    norms = np.linalg.norm(moco.state["queue"], axis=1)
    np.testing.assert_allclose(norms, 1, rtol=1e-5)


def test_queue_takes_the_keys_and_wraps(moco):
    case, seen = moco, [np.asarray(moco.state["queue"])]
    for step in range(4):
        (_, out), grads = case.step(step, key=step)
        queue = np.asarray(out.state["queue"])
        place = 8 * (step % 3)
        changed = np.any(queue != seen[-1], axis=1)
        assert changed[place : place + 8].all() and changed.sum() == 8
        np.testing.assert_allclose(
            np.linalg.norm(queue[place : place + 8], axis=1), 1, rtol=1e-4
        )
        assert int(out.state["pointer"]) == (place + 8) % 24
        seen.append(queue)
        case = case._replace(state=out.state)
    assert not silent(grads)


def test_key_network_follows_before_its_forward(plain):
    moved = noisy(plain.params)
    (_, out), _ = plain.step(params=moved)
    old, new = leaves(plain.state["key"]), leaves(moved)
    for name, got in leaves(out.state["key"]).items():
        want = 0.9 * old[name] + 0.1 * new[name]
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)

    def keys(params):
        (h,) = features_by_hand(params, plain.state["key_stats"], plain.views[1:])
        head = params["projector"]
        h = np.maximum(h @ head["dense0"]["kernel"] + head["dense0"]["bias"], 0)
        return unit(h @ head["dense1"]["kernel"] + head["dense1"]["bias"])

    queue = np.asarray(out.state["queue"])[:8]
    np.testing.assert_allclose(queue, keys(out.state["key"]), atol=1e-3)
    assert np.abs(queue - keys(plain.state["key"])).max() > 0.02
    assert np.abs(queue - keys(moved)).max() > 0.02


def test_the_loss_sees_the_queue_before_the_new_keys(plain):
    """With equal views and networks, q is k; the value is InfoNCE."""
    (value, out), _ = plain.step(views=[plain.views[0]] * 2)
    keys = out.state["queue"][:8]
    want = losses.moco_v2(keys, keys, plain.state["queue"], 0.3)
    assert float(value) == pytest.approx(float(want), rel=1e-4)
    assert float(out.metrics["pair_cosine"]) == pytest.approx(1, abs=1e-4)


def test_keys_are_normalised_in_other_groups_than_queries(moco):
    """The same image has other neighbours as a key: the leak is closed."""
    # Images of growing contrast: a group's statistics tell who is in it.
    view = moco.views[0] * np.arange(1, 9).reshape(8, 1, 1, 1)
    case = moco._replace(views=[view.astype("float32")] * 2)
    cosines = [float(case.step(key=k)[0][1].metrics["pair_cosine"]) for k in range(4)]
    assert min(cosines) < 0.999 and len(set(cosines)) > 1


def test_a_group_is_normalised_by_itself(moco):
    """What happens in the second half of the batch does not reach the first."""
    views = [moco.views[0].copy(), moco.views[1]]
    views[0][4:] += 3
    (_, before), _ = moco.step()
    (_, after), _ = moco.step(views=views)
    np.testing.assert_allclose(
        before.features[:4, 0], after.features[:4, 0], rtol=1e-4, atol=1e-5
    )
    assert apart(before.features[4:, 0], after.features[4:, 0]) > 1e-3


def test_errors():
    with pytest.raises(ValueError, match="queue_size 20 must be a multiple"):
        make("moco_v2", queue_size=20)
    with pytest.raises(ValueError, match="bn_groups 3 must divide"):
        make("moco_v2", queue_size=24, bn_groups=3)
