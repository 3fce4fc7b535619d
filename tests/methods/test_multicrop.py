"""SwAV, DINO, DeepCluster: prototypes, queue, centre, teacher, clusters, local crops."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sp_jax import losses, methods, optim
from sp_jax.methods.base import Network, forward
from sp_jax.methods.swav import SwAVNetwork
from sp_jax.models import MLP, get
from tests.methods.build import IMAGES, apart, leaves, make, silent, unit

SHAPES = ((16, 16, 3),) * 2 + ((8, 8, 3),) * 2


@pytest.fixture(scope="module")
def swav():
    return make(
        "swav",
        SHAPES,
        num_prototypes=10,
        queue_size=16,
        queue_starts=1.0,
        hidden_dim=16,
        projection_dim=12,
    )


@pytest.fixture(scope="module")
def dino():
    return make(
        "dino",
        SHAPES,
        out_dim=20,
        hidden_dim=16,
        bottleneck_dim=12,
        momentum=0.9,
        teacher_temperature=0.07,
        warmup_teacher_temperature_epochs=3,
    )


@pytest.fixture(scope="module")
def deepcluster():
    return make(
        "deepcluster",
        num_clusters=4,
        num_heads=3,
        hidden_dim=16,
        projection_dim=12,
    )


@functools.partial(jax.jit, static_argnums=0)
def run(network, params, stats, views):
    return forward(network, params, stats, views, joint=True)[0]


def test_views_are_two_large_and_some_small():
    for name, count, default in (("swav", 3, 6), ("dino", 3, 8), ("deepcluster", 3, 0)):
        module = methods.get(name)
        assert len(module.views(64)) == 2 + default
        sizes = [view.size for view in module.views(64, local_crops=count)]
        assert sizes == [64, 64, 32, 32, 32]
    globals_ = methods.get("dino").views(64)[:2]
    assert [v.solarize for v in globals_] == [0.0, 0.2]
    assert [v.blur for v in globals_] == [1.0, 0.1]


def test_swav_prototypes_stay_on_the_sphere(swav):
    kernel = swav.params["prototypes"]["kernel"]
    assert kernel.shape == (12, 10) and set(swav.params["prototypes"]) == {"kernel"}
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1, rtol=1e-5)
    moved = jax.tree.map(lambda p: 3 * p + 0.1, swav.params)
    params, _ = swav.method.update(moved, swav.state, 0)
    got = params["prototypes"]["kernel"]
    np.testing.assert_allclose(np.linalg.norm(got, axis=0), 1, rtol=1e-5)
    assert apart(params["backbone"], moved["backbone"]) == 0


def test_swav_queue_fills_from_its_epoch_and_joins_when_full(swav):
    (before, out), grads = swav.step(step=3)  # the queue starts in epoch 1, step 4
    assert not np.any(out.state["queue"])
    assert not silent(grads)
    case, values = swav, []
    for step in range(4, 8):
        # From step 5 on the batch is that of `before`; from step 6 on the queue is full.
        views = swav.views if step >= 5 else [-2 * v for v in swav.views]
        (value, out), _ = case.step(step, views=views)
        queue = np.asarray(out.state["queue"])
        filled = np.any(queue != 0, axis=2).sum(axis=1)
        np.testing.assert_array_equal(filled, min(8 * (step - 3), 16))
        values.append(float(value))
        state = {**out.state, "batch_stats": swav.state["batch_stats"]}
        case = case._replace(state=state)
    assert values[1] == pytest.approx(float(before), rel=1e-6)
    assert values[2] != pytest.approx(float(before), rel=1e-6)


def test_swav_loss_is_the_mean_of_swapped_predictions(swav):
    (value, out), _ = swav.step()

    network = SwAVNetwork(
        get("resnet18", width=4), MLP((16, 12)), nn.Dense(10, use_bias=False)
    )
    outputs = run(network, swav.params, swav.state["batch_stats"], swav.views)
    scores = [scores for _, _, scores in outputs]
    terms = [
        losses.swav(scores[v], losses.sinkhorn(scores[g]))
        for g in (0, 1)
        for v in range(4)
        if v != g
    ]
    assert float(value) == pytest.approx(float(np.mean(terms)), rel=1e-4)
    assert 1 <= float(out.metrics["used_prototypes"]) <= 8


def test_swav_needs_a_queue_of_whole_batches():
    with pytest.raises(ValueError, match="queue_size 12 must be a multiple"):
        make("swav", queue_size=12)


def test_dino_head(dino):
    head = dino.params["projector"]
    assert head["last_layer"]["kernel"].shape == (12, 20)
    assert set(head["last_layer"]) == {"kernel"}  # lengths fixed at 1
    trained = make("dino", out_dim=20, hidden_dim=16, norm_last_layer=False)
    assert trained.params["projector"]["last_layer"]["scale"].shape == (20,)
    assert not silent(trained.step()[1])


def longer(params):
    """The same directions in the bottleneck and in the last layer, other lengths."""
    head = params["projector"]
    dense = jax.tree.map(lambda p: 1000 * p, head["dense2"])
    kernel = head["last_layer"]["kernel"] * np.linspace(0.1, 50, 20, dtype=np.float32)
    head = {**head, "dense2": dense, "last_layer": {"kernel": kernel}}
    return {**params, "projector": head}


def test_dino_logits_are_cosines(dino):
    """Of the student and of the teacher: only directions count."""
    (value, out), _ = dino.step()
    assert np.any(out.state["center"])
    state = {**dino.state, "teacher": longer(dino.state["teacher"])}
    (other, after), _ = dino.step(params=longer(dino.params), state=state)
    assert float(other) == pytest.approx(float(value), rel=1e-4)
    np.testing.assert_allclose(
        after.state["center"], out.state["center"], rtol=1e-3, atol=1e-6
    )


def test_dino_teacher_and_centre(dino):
    assert apart(dino.state["teacher"], dino.params) == 0
    moved = jax.tree.map(lambda p: 1.5 * p + 0.01, dino.params)
    (_, out), grads = dino.step(params=moved)
    assert not silent(grads)
    assert apart(out.state["teacher"], dino.state["teacher"]) == 0  # not in the loss
    # The centre moves a tenth of the way to the mean of the raw teacher logits.
    centre = np.asarray(out.state["center"])
    (_, again), _ = dino.step(params=moved, state=out.state)
    assert np.any(centre)
    np.testing.assert_allclose(again.state["center"], 1.9 * centre, rtol=1e-4)
    _, state = dino.method.update(moved, out.state, jnp.int32(5))
    m = 1 - 0.1 * (1 + np.cos(np.pi * 5 / 20)) / 2
    old, new = leaves(dino.state["teacher"]), leaves(moved)
    for name, got in leaves(state["teacher"]).items():
        want = m * old[name] + (1 - m) * new[name]
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_dino_teacher_sees_globals_only(dino):
    views = [*dino.views[:2], 5 * dino.views[2], dino.views[3]]
    (_, a), _ = dino.step()
    (_, b), _ = dino.step(views=views)
    assert apart(a.state["center"], b.state["center"]) == 0


def test_dino_temperature_changes_once_an_epoch(dino):
    seen = [
        float(dino.step(step)[0][1].metrics["teacher_temperature"])
        for step in (0, 3, 4, 8, 19)
    ]
    np.testing.assert_allclose(seen, [0.04, 0.04, 0.055, 0.07, 0.07], rtol=1e-5)


def test_dino_evaluates_the_teacher(dino):
    variables = dino.method.backbone_variables(dino.params, dino.state)
    assert variables["params"] is dino.state["teacher"]["backbone"]
    assert variables["batch_stats"] is dino.state["teacher_stats"]["backbone"]


def test_dino_last_layer_rests_for_an_epoch_and_decays_kernels():

    module = methods.get("dino")
    params = {
        "projector": {"last_layer": {"kernel": 0, "scale": 0}, "dense0": {"bias": 0}},
        "backbone": {"cls_token": 0, "norm": {"scale": 0}},
    }
    rules = {
        k: module.RULES[int(r)]
        for k, r in leaves(optim.assign(module.RULES, params)).items()
    }
    assert rules["projector/last_layer/kernel"].frozen_epochs == 1
    assert rules["projector/last_layer/scale"].frozen_epochs == 1
    assert not rules["projector/dense0/bias"].decay
    assert rules["backbone/cls_token"].decay
    assert not rules["backbone/norm/scale"].decay


def cluster_network():
    return Network(get("resnet18", width=4), MLP((16, 12)))


def observed(case):
    fill_banks = jax.jit(case.method.fill_banks)
    return case._replace(state=fill_banks(case.params, case.state, case.batch()))


def test_deepcluster_bank_is_indexed_by_image(deepcluster):
    case = observed(deepcluster)
    bank = np.asarray(case.state["bank"])
    outputs = run(
        cluster_network(), case.params, deepcluster.state["batch_stats"], case.views
    )
    for view, (_, z) in enumerate(outputs):
        filled = np.any(bank[view] != 0, axis=1)
        assert set(np.flatnonzero(filled)) == set(case.index[:, view])
        np.testing.assert_allclose(
            bank[view][case.index[:, view]], unit(z), rtol=1e-3, atol=1e-5
        )


def test_deepcluster_clusters_at_the_start_of_an_epoch(deepcluster):
    case = observed(deepcluster)
    (_, out), grads = case.step(step=0)
    clusters = np.asarray(out.state["clusters"])
    assert clusters.shape == (3, IMAGES) and not silent(grads)
    for head in range(3):
        seen = set(case.index[:, head % 2])
        assert set(np.flatnonzero(clusters[head] >= 0)) == seen
        assert set(clusters[head][clusters[head] < 0]) == {-100}
        points = np.asarray(case.state["bank"])[head % 2]
        scores = points @ np.asarray(out.state["prototypes"])[head].T
        want = scores.argmax(axis=1)[clusters[head] >= 0]
        np.testing.assert_array_equal(clusters[head][clusters[head] >= 0], want)
    (_, later), _ = case.step(step=1, state=out.state, views=[-v for v in case.views])
    assert apart(later.state["prototypes"], out.state["prototypes"]) == 0
    assert apart(later.state["clusters"], out.state["clusters"]) == 0
    assert apart(later.state["bank"], out.state["bank"]) > 0
    # Step 4 starts the next epoch: the bank of the one before is clustered.
    (_, again), _ = case.step(step=4, state=later.state)
    assert apart(again.state["prototypes"], later.state["prototypes"]) > 0.01
    for head in range(3):
        points = np.asarray(later.state["bank"])[head % 2]
        scores = points @ np.asarray(again.state["prototypes"])[head].T
        members = np.asarray(again.state["clusters"])[head]
        seen = members >= 0
        np.testing.assert_array_equal(members[seen], scores.argmax(axis=1)[seen])


def test_deepcluster_target_is_the_other_images_cluster(deepcluster):
    """With one image in both places it is the image's own: the official loss."""
    case = observed(deepcluster)
    case = observed(case._replace(index=case.index[:, ::-1]))
    (_, out), _ = case.step(step=0)
    state = {**out.state, "batch_stats": case.state["batch_stats"]}
    outputs = run(cluster_network(), case.params, case.state["batch_stats"], case.views)
    prototypes, clusters = state["prototypes"], np.asarray(state["clusters"])

    def by_hand(targets):
        terms = [
            losses.deepcluster(
                jnp.concatenate([losses.l2_normalize(z) for _, z in outputs])
                @ prototypes[head].T,
                jnp.concatenate([clusters[head][t] for t in targets]),
            )
            for head in range(3)
        ]
        return float(np.mean(terms))

    a, b = case.index[:, 0], case.index[:, 1]
    (semantic, _), _ = case.step(step=1, state=state)
    assert float(semantic) == pytest.approx(by_hand([b, a]), rel=1e-4)
    (augmented, _), _ = case.step(step=1, state=state, index=np.stack([a, a], axis=1))
    assert float(augmented) == pytest.approx(by_hand([a, a]), rel=1e-4)


def test_deepcluster_needs_more_images_than_clusters():
    with pytest.raises(ValueError, match="num_clusters 99 exceeds the 24 images"):
        make("deepcluster", num_clusters=99)
