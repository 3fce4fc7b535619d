"""DINO: the loss, the centre, the frozen last layer and the teacher of a ViT.

The head, the moving average and the temperatures are tested in `test_multicrop.py`.
"""

import jax
import numpy as np
import pytest

from configs import dino_resnet50, dino_vit
from sp_jax import losses, methods
from sp_jax.methods.base import Network, forward
from sp_jax.models import DINOHead, get
from sp_jax.recipe import make_optimizer
from tests.methods.build import apart, leaves, make
from tests.methods.recipe_steps import recipe_shapes, train

SHAPES = ((16, 16, 3),) * 2 + ((8, 8, 3),)
HEAD = {"out_dim": 20, "hidden_dim": 16, "bottleneck_dim": 12}


@pytest.fixture(scope="module")
def case():
    """A student that has left its teacher, and a centre that is not 0."""
    case = make("dino", SHAPES, teacher_temperature=0.07, center_momentum=0.8, **HEAD)
    centre = np.linspace(-0.1, 0.1, 20, dtype=np.float32)
    params = jax.tree.map(lambda p: 1.2 * p + 0.02, case.params)
    return case._replace(params=params, state={**case.state, "center": centre})


def test_loss_and_centre_by_hand(case):
    network = Network(get("resnet18", width=4), DINOHead(20, 16, 12))
    run = jax.jit(lambda p, s, v: forward(network, p, s, v, joint=True)[0])
    state = case.state
    student = np.stack(
        [z for _, z in run(case.params, state["batch_stats"], case.views)]
    )
    teacher = np.stack(
        [z for _, z in run(state["teacher"], state["teacher_stats"], case.views[:2])]
    )
    (value, out), _ = case.step()
    want = losses.dino(student, teacher, state["center"], 0.1, 0.07)
    assert float(value) == pytest.approx(float(want), rel=1e-4)
    # Of raw logits, and after the loss: the old centre is not subtracted from them.
    np.testing.assert_allclose(
        out.state["center"],
        0.8 * state["center"] + 0.2 * teacher.mean(axis=(0, 1)),
        rtol=1e-3,
        atol=1e-6,
    )


def test_the_recipe_of_the_paper():
    shapes = recipe_shapes(dino_vit.get_config())
    head = {k: v for k, v in shapes.items() if k.startswith("projector/")}
    assert head == {
        "projector/dense0/kernel": (384, 2048),
        "projector/dense0/bias": (2048,),
        "projector/dense1/kernel": (2048, 2048),
        "projector/dense1/bias": (2048,),
        "projector/dense2/kernel": (2048, 256),
        "projector/dense2/bias": (256,),
        "projector/last_layer/kernel": (256, 65536),
    }
    assert shapes["backbone/pos_embed"] == (1, 1 + 8 * 8, 384)
    sizes = [view.size for view in methods.get("dino").views(64)]
    assert sizes == [64] * 2 + [32] * 8


def test_the_rate_ends_at_a_millionth():
    run = methods.Run(total_steps=200, steps_per_epoch=10, batch_size=256, num_images=1)
    for module, peak in ((dino_vit, 5e-4), (dino_resnet50, 0.03)):
        rate = make_optimizer(module.get_config().to_dict(), run).schedule
        got = [float(rate(step)) for step in (0, 100, 200)]
        np.testing.assert_allclose(got, [0.0, peak, 1e-6], rtol=1e-3)


def test_the_last_layer_rests_for_an_epoch_and_so_do_its_moments():
    """Through the optimiser of the recipe for a ViT, two steps an epoch."""
    config = dino_vit.get_config("quick")
    config.model.depth = 1
    config.method_options.update(HEAD)
    config.augment.local_crops = 0
    states, metrics = train(config, steps=3, steps_per_epoch=2)
    name = "projector/last_layer/kernel"
    kernels = [leaves(s.params)[name] for s in states]
    np.testing.assert_array_equal(kernels[2], kernels[0])
    assert np.abs(kernels[3] - kernels[2]).max() > 0
    others = [leaves(s.params)["projector/dense0/kernel"] for s in states]
    assert np.abs(others[2] - others[0]).max() > 0
    for before, after, line in zip(states[:3], states[1:], metrics, strict=True):
        m = line["teacher_momentum"]
        old, new = leaves(before.method_state["teacher"]), leaves(after.params)
        for name, got in leaves(after.method_state["teacher"]).items():
            want = m * old[name] + (1 - m) * new[name]
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
    moments = [m for m in jax.tree.leaves(states[2].opt_state) if m.shape == (12, 20)]
    assert moments and not any(np.any(m) for m in moments)


def test_the_teacher_drops_no_path():
    """Another key changes what the student drops, and nothing of the teacher."""
    vit = {
        "name": "vit_tiny",
        "depth": 2,
        "dim": 12,
        "patch_size": 8,
        "image_size": 16,
        "drop_path": 0.5,
    }
    case = make("dino", SHAPES, model=vit, **HEAD)
    (_, a), _ = case.step(key=1)
    (_, b), _ = case.step(key=2)
    assert apart(a.features, b.features) > 1e-3
    assert apart(a.state["center"], b.state["center"]) == 0
    assert a.metrics["teacher_entropy"] == b.metrics["teacher_entropy"]
