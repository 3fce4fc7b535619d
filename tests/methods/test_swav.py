"""SwAV: the queue, the codes, and the prototypes through the optimiser.

Prototypes on the sphere, the loss without a queue and when the queue fills are tested in
`test_multicrop.py`.
"""

import numpy as np
import pytest

from configs.swav_resnet50 import get_config
from sp_jax import losses, methods, optim
from tests.methods.build import features_by_hand, leaves, make, stem_mean, unit
from tests.methods.recipe_steps import train

SHAPES = ((16, 16, 3),) * 2 + ((8, 8, 3),)
OPTIONS = {
    "num_prototypes": 10,
    "queue_size": 16,
    "queue_starts": 0.0,
    "hidden_dim": 16,
    "projection_dim": 12,
}


@pytest.fixture(scope="module")
def case():
    return make("swav", SHAPES, epsilon=0.03, temperature=0.2, **OPTIONS)


@pytest.fixture(scope="module")
def hidden(case):
    """The projector's first layer for each view, before its normalisation."""
    layer = case.params["projector"]["dense0"]
    features = features_by_hand(case.params, case.state["batch_stats"], case.views)
    return [h @ layer["kernel"] + layer["bias"] for h in features]


@pytest.fixture(scope="module")
def outputs(case, hidden):
    """Unit projections and scores of each view; the head sees all views together."""
    head = case.params["projector"]
    x = np.concatenate(hidden)
    x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
    x = np.maximum(x * head["bn0"]["scale"] + head["bn0"]["bias"], 0)
    z = unit(x @ head["dense1"]["kernel"] + head["dense1"]["bias"])
    scores = z @ np.asarray(case.params["prototypes"]["kernel"])
    return [np.float32(np.split(y, 3)) for y in (z, scores)]


def test_the_backbone_normalises_by_size_and_the_head_all_crops(case, hidden):
    (_, out), _ = case.step()
    stats = out.state["batch_stats"]
    want = 0.1 * np.concatenate(hidden).mean(0)
    got = stats["projector"]["bn0"]["mean"]
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5)
    large = stem_mean(case.params, np.concatenate(case.views[:2]))
    small = stem_mean(case.params, case.views[2])
    want = 0.9 * 0.1 * large + 0.1 * small
    got = stats["backbone"]["bn1"]["mean"]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-7)


def test_rules():
    rules = methods.get("swav").RULES
    tree = {"prototypes": {"kernel": 0}, "backbone": {"bn1": {"scale": 0, "bias": 0}}}
    numbers = leaves(optim.assign(rules, tree))
    assert rules[int(numbers["prototypes/kernel"])].frozen_epochs == 1
    for name in ("backbone/bn1/scale", "backbone/bn1/bias"):
        rule = rules[int(numbers[name])]
        # LARC adapts them all the same, LARS does not.
        assert rule.decay and not rule.adapt and not rule.frozen_epochs


def test_codes_are_the_last_rows_behind_a_full_queue(case, outputs):
    _, scores = outputs
    rng = np.random.default_rng(1)
    queue = np.asarray(losses.l2_normalize(rng.normal(size=(2, 16, 12))), np.float32)
    (value, _), _ = case.step(state={**case.state, "queue": queue})
    kernel = np.asarray(case.params["prototypes"]["kernel"])
    codes = [
        losses.sinkhorn(np.concatenate([queue[g] @ kernel, scores[g]]), 0.03)[-8:]
        for g in (0, 1)
    ]
    terms = [
        losses.swav(scores[v], codes[g], 0.2)
        for g in (0, 1)
        for v in range(3)
        if v != g
    ]
    assert float(value) == pytest.approx(float(np.mean(terms)), rel=1e-4)


def test_the_newest_projections_come_first_and_the_oldest_leave(case, outputs):
    projections, _ = outputs
    old = np.arange(2 * 16 * 12, dtype=np.float32).reshape(2, 16, 12)
    (_, out), _ = case.step(state={**case.state, "queue": old})
    queue = np.asarray(out.state["queue"])
    for g in (0, 1):
        np.testing.assert_allclose(queue[g, :8], projections[g], rtol=1e-3, atol=1e-5)
        np.testing.assert_array_equal(queue[g, 8:], old[g, :8])


def test_prototypes_move_after_the_first_epoch_only():
    """Through the optimiser of the recipe: two steps an epoch."""
    config = get_config("quick")
    config.method_options.update(OPTIONS)
    config.augment.local_crops = 0
    states, _ = train(config, steps=4, steps_per_epoch=2)
    kernels = [np.asarray(s.params["prototypes"]["kernel"]) for s in states]
    np.testing.assert_allclose(kernels[2], kernels[0], atol=1e-6)
    assert np.abs(kernels[3] - kernels[2]).max() > 1e-6
    np.testing.assert_allclose(np.linalg.norm(kernels[4], axis=0), 1, rtol=1e-5)
    filled = [np.any(np.asarray(s.method_state["queue"])[0] != 0, 1) for s in states]
    assert [int(f.sum()) for f in filled] == [0, 8, 16, 16, 16]
