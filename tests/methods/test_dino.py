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
from tests.methods.build import apart, features_by_hand, leaves, make, stem_mean
from tests.methods.recipe_steps import train

SHAPES = ((16, 16, 3),) * 2 + ((8, 8, 3),)
HEAD = {"out_dim": 20, "hidden_dim": 16, "bottleneck_dim": 12}


@pytest.fixture(scope="module")
def case():
    """A student that has left its teacher, and a centre that is not 0."""
    case = make(
        "dino",
        SHAPES,
        teacher_temperature=0.07,
        center_momentum=0.8,
        head_norm=True,
        **HEAD,
    )
    centre = np.linspace(-0.1, 0.1, 20, dtype=np.float32)
    params = jax.tree.map(lambda p: 1.2 * p + 0.02, case.params)
    return case._replace(params=params, state={**case.state, "center": centre})


def test_loss_and_centre_by_hand(case):
    network = Network(get("resnet18", width=4), DINOHead(20, 16, 12, hidden_norm=True))
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


def test_the_backbone_normalises_by_size_and_the_head_all_crops(case):
    (_, out), _ = case.step()
    layer = case.params["projector"]["dense0"]
    features = features_by_hand(case.params, case.state["batch_stats"], case.views)
    hidden = np.concatenate(features) @ layer["kernel"] + layer["bias"]
    stats = out.state["batch_stats"]
    np.testing.assert_allclose(
        stats["projector"]["bn0"]["mean"], 0.1 * hidden.mean(0), rtol=1e-3, atol=1e-5
    )
    large = stem_mean(case.params, np.concatenate(case.views[:2]))
    small = stem_mean(case.params, case.views[2])
    np.testing.assert_allclose(
        stats["backbone"]["bn1"]["mean"],
        0.9 * 0.1 * large + 0.1 * small,
        rtol=1e-4,
        atol=1e-7,
    )


def test_local_crops_have_half_the_size():
    sizes = [view.size for view in methods.get("dino").views(64)]
    assert sizes == [64] * 2 + [32] * 8


def test_the_rate_ends_at_a_millionth():
    run = methods.RunSize(
        total_steps=200, steps_per_epoch=10, batch_size=256, num_images=1
    )
    for module, peak in ((dino_vit, 5e-4), (dino_resnet50, 0.03)):
        _, rate = make_optimizer(module.get_config().to_dict(), run)
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
