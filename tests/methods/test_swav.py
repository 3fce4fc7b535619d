"""SwAV: what is in the queue and in the codes, and prototypes through the optimiser.

Prototypes on the sphere, the loss without a queue and when the queue fills are tested in
`test_multicrop.py`.
"""

import flax.linen as nn
import jax
import numpy as np
import pytest

from configs.swav_resnet50 import get_config
from sp_jax import losses, methods, optim
from sp_jax.methods.base import forward
from sp_jax.methods.swav import SwAVNetwork
from sp_jax.models import MLP, get
from tests.methods.build import leaves, make
from tests.methods.recipe_steps import recipe_shapes, train

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
def outputs(case):
    """Unit projections and scores of each view, from a network of the test's own."""
    network = SwAVNetwork(
        get("resnet18", width=4), MLP((16, 12)), nn.Dense(10, use_bias=False)
    )
    run = jax.jit(lambda p, s, v: forward(network, p, s, v, joint=True)[0])
    out = run(case.params, case.state["batch_stats"], case.views)
    return [np.asarray(z) for _, z, _ in out], [np.asarray(s) for _, _, s in out]


def test_the_recipes_sizes_and_rules():
    shapes = recipe_shapes(get_config())
    heads = {k: v for k, v in shapes.items() if not k.startswith("backbone/")}
    assert heads == {
        "projector/dense0/kernel": (2048, 2048),
        "projector/dense0/bias": (2048,),
        "projector/bn0/scale": (2048,),
        "projector/bn0/bias": (2048,),
        "projector/dense1/kernel": (2048, 128),
        "projector/dense1/bias": (128,),
        "prototypes/kernel": (128, 3000),
    }
    rules = methods.get("swav").RULES
    tree = {"prototypes": {"kernel": 0}, "backbone": {"bn1": {"scale": 0, "bias": 0}}}
    numbers = leaves(optim.assign(rules, tree))
    assert rules[int(numbers["prototypes/kernel"])].frozen_epochs == 1
    for name in ("backbone/bn1/scale", "backbone/bn1/bias"):
        rule = rules[int(numbers[name])]
        assert rule.decay and rule.adapt and not rule.frozen_epochs  # like everything


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
