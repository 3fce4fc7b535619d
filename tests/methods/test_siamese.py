"""BYOL, SimSiam, Barlow Twins, VICReg, MoCo v3, NNCLR: heads, losses, targets."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sp_jax import losses, methods, models, optim
from sp_jax.methods.base import Network, apply, forward, init_network
from sp_jax.models.layers import BatchNorm
from tests.methods.build import apart, leaves, make, noisy, silent, stem_mean, unit

WIDTH = 32  # features of the tiny ResNet


class FlaxNorm(nn.Module):
    """Flax's own, called as ours."""

    @nn.compact
    def __call__(self, x, train):
        return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)


@pytest.fixture(scope="module")
def cases():
    """Each method once, compiled once."""
    options = {
        "byol": {"hidden_dim": 24, "projection_dim": 12, "momentum": 0.9},
        "moco_v3": {
            "hidden_dim": 24,
            "projection_dim": 12,
            "momentum": 0.9,
            "temperature": 0.2,
        },
        "simsiam": {"projection_dim": 24, "predictor_dim": 6},
        "barlow_twins": {"projection_dim": 24, "off_diagonal_weight": 0.1},
        "vicreg": {"projection_dim": 24},
        "nnclr": {
            "queue_size": 24,
            "hidden_dim": 24,
            "projection_dim": 12,
            "predictor_dim": 20,
            "temperature": 0.2,
        },
    }
    return {name: make(name, **given) for name, given in options.items()}


# Layers of each head: (inputs, outputs, has a bias, what normalises it).
HEADS = {
    "byol": {
        "projector": [(32, 24, True, "affine"), (24, 12, False, None)],
        "predictor": [(12, 24, True, "affine"), (24, 12, False, None)],
    },
    "moco_v3": {
        "projector": [(32, 24, False, "affine"), (24, 12, False, "plain")],
        "predictor": [(12, 24, False, "affine"), (24, 12, False, None)],
    },
    "simsiam": {
        "projector": [
            (32, 24, False, "affine"),
            (24, 24, False, "affine"),
            (24, 24, False, "plain"),
        ],
        "predictor": [(24, 6, False, "affine"), (6, 24, True, None)],
    },
    "barlow_twins": {
        "projector": [
            (32, 24, False, "affine"),
            (24, 24, False, "affine"),
            (24, 24, False, None),
        ]
    },
    "vicreg": {
        "projector": [
            (32, 24, True, "affine"),
            (24, 24, True, "affine"),
            (24, 24, False, None),
        ]
    },
    "nnclr": {
        "projector": [
            (32, 24, False, "affine"),
            (24, 24, False, "affine"),
            (24, 12, False, "affine"),
        ],
        "predictor": [(12, 20, False, "affine"), (20, 12, True, None)],
    },
}


@pytest.mark.parametrize("name", HEADS)
def test_heads(cases, name):
    case = cases[name]
    for head, layers in HEADS[name].items():
        params = case.params[head]
        stats = case.state["batch_stats"][head]
        assert sum("dense" in key for key in params) == len(layers)
        for i, (inputs, outputs, bias, norm) in enumerate(layers):
            assert params[f"dense{i}"]["kernel"].shape == (inputs, outputs)
            assert ("bias" in params[f"dense{i}"]) == bias, (head, i)
            assert (f"bn{i}" in params) == (norm == "affine"), (head, i)
            assert (f"bn{i}" in stats) == (norm is not None), (head, i)


def test_projections_of_byol_can_be_normalised():
    """Statistics without scale and bias, in both projectors and not in the predictor."""
    method = methods.get("byol").create(
        models.get("resnet18", width=4),
        methods.RunSize(10, 5, 8, 8),
        hidden_dim=24,
        projection_dim=12,
        projection_norm=True,
    )
    views = [jax.ShapeDtypeStruct((8, 32, 32, 3), jnp.float32)] * 2
    params, state = jax.eval_shape(method.init, jax.random.key(0), views)
    stats = state["batch_stats"]
    assert stats["projector"]["bn1"].keys() == {"mean", "var"}
    assert stats["projector"].keys() == state["target_stats"]["projector"].keys()
    assert "bn1" not in params["projector"] and "bn1" not in stats["predictor"]


@functools.partial(jax.jit, static_argnums=0)
def run(network, params, stats, views):
    """A forward a view, one after the other."""
    return [apply(network, params, stats, view)[0] for view in views]


def heads_of(case, network):
    """Outputs by view, each with batch statistics of its own."""
    return run(network, case.params, case.state["batch_stats"], case.views)


def networks(name, case):
    """The modules once more, from the options of the fixture."""
    mlp = models.MLP
    backbone = models.get("resnet18", width=4)
    heads = {
        "byol": (mlp((24, 12), last_bias=False), mlp((24, 12), last_bias=False)),
        "moco_v3": (
            mlp((24, 12), hidden_bias=False, last_bias=False, last_norm="plain"),
            mlp((24, 12), hidden_bias=False, last_bias=False),
        ),
        "simsiam": (
            mlp((24,) * 3, hidden_bias=False, last_bias=False, last_norm="plain"),
            mlp((6, 24), hidden_bias=False),
        ),
        "barlow_twins": (mlp((24,) * 3, hidden_bias=False, last_bias=False),),
        "vicreg": (mlp((24,) * 3, last_bias=False),),
        "nnclr": (
            mlp((24, 24, 12), hidden_bias=False, last_bias=False, last_norm="affine"),
            mlp((20, 12), hidden_bias=False),
        ),
    }[name]
    return Network(backbone, *heads), Network(backbone, heads[0])


@pytest.mark.parametrize("name", HEADS)
def test_loss_is_that_of_two_forwards(cases, name):
    case = cases[name]
    (value, out), grads = case.step()
    network, target_network = networks(name, case)
    first, second = heads_of(case, network)
    if name == "simsiam":
        want = (
            losses.simsiam(first[2], second[1]) + losses.simsiam(second[2], first[1])
        ) / 2
    elif name == "barlow_twins":
        want = losses.barlow_twins(first[1], second[1], 0.1)
    elif name == "vicreg":
        want = losses.vicreg(first[1], second[1])
    elif name == "nnclr":
        queue = np.asarray(case.state["queue"])
        near = [queue[(unit(z) @ queue.T).argmax(1)] for _, z, _ in (first, second)]
        want = (
            losses.nnclr(second[2], near[0], 0.2) + losses.nnclr(first[2], near[1], 0.2)
        ) / 2
    else:
        target = case.state["target" if name == "byol" else "key"]
        stats = case.state["target_stats" if name == "byol" else "key_stats"]
        (_, t1), (_, t2) = run(target_network, target, stats, case.views)
        if name == "byol":
            want = losses.byol(first[2], t2) + losses.byol(second[2], t1)
        else:
            want = losses.moco_v3(first[2], t2, 0.2) + losses.moco_v3(
                second[2], t1, 0.2
            )
    assert float(value) == pytest.approx(float(want), rel=1e-3)
    assert out.features.shape == (8, 2, WIDTH)
    assert not silent(grads)
    # Two forwards move the running statistics twice, the first view first.
    m1, m2 = (np.asarray(stem_mean(case.params, view)) for view in case.views)
    old = np.asarray(case.state["batch_stats"]["backbone"]["bn1"]["mean"])
    np.testing.assert_allclose(
        out.state["batch_stats"]["backbone"]["bn1"]["mean"],
        0.9 * (0.9 * old + 0.1 * m1) + 0.1 * m2,
        rtol=1e-4,
        atol=1e-7,
    )


def test_statistics_are_of_one_view(cases):
    """Another second view does not change the features of the first."""
    case = cases["vicreg"]
    (_, before), _ = case.step()
    (_, after), _ = case.step(views=[case.views[0], 3 + 2 * case.views[1]])
    np.testing.assert_allclose(
        before.features[:, 0], after.features[:, 0], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("norm", [BatchNorm, FlaxNorm])
def test_each_view_has_statistics_of_its_own(norm):
    """Equal to one forward a view, also with a normalisation that knows of no groups."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = norm(name="norm")(nn.Dense(5)(x.mean((1, 2))), train)
            return nn.tanh(x)

    net = Net()
    views = [3 * case for case in np.random.default_rng(0).normal(size=(2, 8, 4, 4, 3))]
    views = [jnp.float32(views[0]), jnp.float32(views[1] + 2)]
    params, stats = init_network(net, jax.random.key(0), views[0])
    want, after = [], stats
    for view in views:
        out, after = apply(net, params, after, view)
        want.append(out)
    got, new = forward(net, params, stats, views, joint=False)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, (got, new), (want, after))
    together, _ = forward(net, params, stats, views, joint=True)
    assert abs(together[0] - got[0]).max() > 0.1


def test_views_in_either_order(cases):
    for name in HEADS:
        case = cases[name]
        (value, _), _ = case.step()
        (swapped, _), _ = case.step(views=case.views[::-1])
        assert float(value) == pytest.approx(float(swapped), rel=1e-3), name


def test_byol_target_starts_apart_and_follows_after_the_step(cases):
    case = cases["byol"]
    assert set(case.state["target"]) == {"backbone", "projector"}
    online = {name: case.params[name] for name in case.state["target"]}
    assert apart(online, case.state["target"]) > 0.01  # another random key
    (_, out), _ = case.step(step=5)
    assert apart(out.state["target"], case.state["target"]) == 0  # not in the loss
    new = jax.tree.map(lambda p: p + 1.0, case.params)
    _, state = case.method.update(new, out.state, jnp.int32(5))
    tau = 1 - 0.1 * (1 + np.cos(np.pi * 5 / 20)) / 2
    old, fresh = leaves(case.state["target"]), leaves(new)
    for name, got in leaves(state["target"]).items():
        want = tau * old[name] + (1 - tau) * fresh[name]
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_moco_v3_key_follows_before_the_forward(cases):
    case = cases["moco_v3"]
    assert case.method.update is None
    moved = noisy(case.params)
    (value, out), _ = case.step(step=5, params=moved)
    m = 1 - 0.1 * (1 + np.cos(np.pi * 5 / 20)) / 2
    assert float(out.metrics["key_momentum"]) == pytest.approx(m)
    old, fresh = leaves(case.state["key"]), leaves(moved)
    for name, got in leaves(out.state["key"]).items():
        want = m * old[name] + (1 - m) * fresh[name]
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
    network, key_network = networks("moco_v3", case)
    (_, _, q1), (_, _, q2) = heads_of(case._replace(params=moved), network)

    def by_hand(key):
        (_, k1), (_, k2) = run(key_network, key, case.state["key_stats"], case.views)
        return float(losses.moco_v3(q1, k2, 0.2) + losses.moco_v3(q2, k1, 0.2))

    assert float(value) == pytest.approx(by_hand(out.state["key"]), rel=1e-3)
    assert float(value) != pytest.approx(by_hand(case.state["key"]), rel=1e-2)


def test_simsiam_predictor_keeps_its_rate():
    module = methods.get("simsiam")
    assert module.RULES[0].constant and not module.RULES[1].constant
    params = {"predictor": {"dense0": {"kernel": 0.0}}, "backbone": {"scale": 0.0}}
    rules = leaves(optim.assign(module.RULES, params))
    assert rules == {"predictor/dense0/kernel": 0, "backbone/scale": 1}


def test_the_online_backbone_is_evaluated(cases):
    for case in cases.values():
        variables = case.method.backbone_variables(case.params, case.state)
        assert variables["params"] is case.params["backbone"]
        assert variables["batch_stats"] is case.state["batch_stats"]["backbone"]
