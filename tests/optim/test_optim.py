"""Optimisers and schedules against their formulas and against PyTorch, ten steps each."""

import importlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from sp_jax import methods, optim
from sp_jax.optim import DECAY_ALL, DECAY_KERNELS, Rule
from sp_jax.optim.transforms import leaf_norms
from sp_jax.recipe import make_optimizer
from tests.methods.recipe_steps import recipe_shapes

STEPS = 10


@pytest.fixture
def problem():
    """Parameters and a gradient for each step, as a network has them."""
    rng = np.random.default_rng(0)
    shapes = {
        "backbone": {"conv": {"kernel": (3, 3, 2, 4)}, "bn": {"scale": (4,)}},
        "head": {"dense": {"kernel": (4, 3), "bias": (3,)}},
    }
    draw = lambda: jax.tree.map(  # noqa: E731
        lambda shape: rng.normal(size=shape).astype(np.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )
    return draw(), [draw() for _ in range(STEPS)]


def schedule(step):
    """A rate that changes, so that the dialects of LARS differ."""
    return 0.5 * 0.9**step


def train(problem, name, rules=DECAY_KERNELS, **options):
    params, gradients = problem
    options = {"weight_decay": 0.01, "momentum": 0.9, "peak": 0.5} | options
    tx = optim.by_rules(optim.get(name), rules, schedule, **options)
    state = tx.init(params)
    update = jax.jit(tx.update)
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


def flat(tree):
    return {
        "/".join(p.key for p in path): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def by_hand(problem, dialect, adapts, decays, decay=0.01, momentum=0.9):
    """The same in float64, a parameter at a time."""
    params, gradients = problem
    result = {}
    for name, w in flat(params).items():
        w, v = np.float64(w), 0.0
        for step, gradient in enumerate(gradients):
            g, lr = np.float64(flat(gradient)[name]), schedule(step)
            d = decay if decays(name) else 0.0
            norm = np.linalg.norm
            if dialect == "larc" and adapts(name):
                ratio = 0.001 * norm(w) / (norm(g) + d * norm(w) + 1e-8)
                g = (g + d * w) * ratio
            else:
                g = g + d * w
                if dialect != "sgd" and adapts(name):
                    g = g * 0.001 * norm(w) / norm(g)
            if dialect == "lars_inside":
                v = momentum * v + lr * g
                w = w - v
            else:
                v = momentum * v + g
                w = w - lr * v
        result[name] = w
    return result


@pytest.mark.parametrize("name", ["sgd", "lars", "lars_inside", "larc"])
@pytest.mark.parametrize("rules", [DECAY_KERNELS, DECAY_ALL])
def test_dialects(problem, name, rules):
    def kernel(path):
        return path.endswith("kernel")

    def every(path):
        return True

    want = by_hand(
        problem,
        name,
        adapts=every if name == "larc" else kernel,
        decays=kernel if rules is DECAY_KERNELS else every,
    )
    for path, got in flat(train(problem, name, rules)).items():
        np.testing.assert_allclose(got, want[path], rtol=1e-5, atol=1e-6, err_msg=path)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_equals_pytorch(problem, name):
    torch = pytest.importorskip("torch")
    params, gradients = problem
    tensors = {n: torch.nn.Parameter(torch.tensor(w)) for n, w in flat(params).items()}
    groups = [
        {
            "params": [t for n, t in tensors.items() if n.endswith("kernel") == decays],
            "weight_decay": 0.1 if decays else 0.0,
        }
        for decays in (True, False)
    ]
    make = {
        "sgd": lambda: torch.optim.SGD(groups, lr=1.0, momentum=0.9),
        "adamw": lambda: torch.optim.AdamW(groups, lr=1.0),
    }
    optimizer = make[name]()
    for step, gradient in enumerate(gradients):
        for group in optimizer.param_groups:
            group["lr"] = schedule(step)
        for n, g in flat(gradient).items():
            tensors[n].grad = torch.tensor(g)
        optimizer.step()
    for path, got in flat(train(problem, name, weight_decay=0.1)).items():
        want = tensors[path].detach().numpy()
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5, err_msg=path)


def test_dino_recipe_equals_pytorch(problem):
    """Clip of each parameter, rising weight decay, and a last layer without gradient.

    The loop is what DINO's code does with `param.grad = None` in the first epoch.
    """
    torch = pytest.importorskip("torch")
    params, gradients = problem
    tensors = {n: torch.nn.Parameter(torch.tensor(w)) for n, w in flat(params).items()}
    decays = [t for n, t in tensors.items() if n.endswith("kernel")]
    others = [t for n, t in tensors.items() if not n.endswith("kernel")]
    optimizer = torch.optim.AdamW(
        [{"params": decays}, {"params": others, "weight_decay": 0.0}], lr=1.0
    )
    weight_decay = optim.cosine(0.04, 0.4, STEPS)
    for step, gradient in enumerate(gradients):
        for group, decay in zip(optimizer.param_groups, (1, 0), strict=True):
            group["lr"] = schedule(step)
            group["weight_decay"] = decay * float(weight_decay(step))
        for n, g in flat(gradient).items():
            g = torch.tensor(g)
            g = g * min(1.0, 1.5 / (float(g.norm()) + 1e-6))
            frozen = n.startswith("head/dense") and step < 4
            tensors[n].grad = None if frozen else g
        optimizer.step()
    rules = (
        Rule("^head/dense/kernel", frozen_epochs=2),
        Rule("^head/dense/bias", decay=False, frozen_epochs=2),
        *DECAY_KERNELS,
    )
    got = train(
        problem,
        "adamw",
        rules,
        weight_decay=weight_decay,
        clip=1.5,
        steps_per_epoch=2,
    )
    for path, value in flat(got).items():
        want = tensors[path].detach().numpy()
        np.testing.assert_allclose(value, want, rtol=1e-5, atol=1e-5, err_msg=path)


def test_frozen_constant_and_scaled_rates(problem):
    params, gradients = flat(problem[0]), [flat(g) for g in problem[1]]
    rules = (
        Rule("conv", frozen_epochs=math.inf),
        Rule("bias", decay=False, constant=True),
        Rule("scale", decay=False, factor=0.5),
        Rule("dense/kernel", decay=False, frozen_epochs=1),
    )
    got = flat(train(problem, "sgd", rules, momentum=0.0, steps_per_epoch=4))
    want = {
        "backbone/conv/kernel": params["backbone/conv/kernel"],
        "head/dense/bias": params["head/dense/bias"]
        - 0.5 * sum(g["head/dense/bias"] for g in gradients),
        "backbone/bn/scale": params["backbone/bn/scale"]
        - sum(
            0.5 * schedule(i) * g["backbone/bn/scale"] for i, g in enumerate(gradients)
        ),
        "head/dense/kernel": params["head/dense/kernel"]
        - sum(
            schedule(i) * g["head/dense/kernel"]
            for i, g in enumerate(gradients)
            if i >= 4
        ),
    }
    for path, value in want.items():
        np.testing.assert_allclose(got[path], value, rtol=1e-5, atol=1e-6)


def test_zero_norms_leave_the_gradient_alone():
    params = {"kernel": jnp.zeros((2, 2))}
    gradient = {"kernel": jnp.ones((2, 2))}
    for name in ("lars", "lars_inside", "larc"):
        tx = optim.get(name)(lambda _: 0.1, weight_decay=0.1)
        updates, _ = tx.update(gradient, tx.init(params), params)
        np.testing.assert_allclose(updates["kernel"], -0.1 * np.ones((2, 2)), rtol=1e-6)


def test_without_a_gradient_larc_decays_nothing():
    """As in apex. LARS goes by the norm of g + d w, so that decay has the whole ratio."""
    w = np.arange(1.0, 5.0, dtype=np.float32).reshape(2, 2)
    params, gradient = {"kernel": jnp.asarray(w)}, {"kernel": jnp.zeros((2, 2))}
    for name, change in (("larc", 0 * w), ("lars", -0.1 * 0.001 * w)):
        tx = optim.get(name)(lambda _: 0.1, weight_decay=0.1)
        updates, _ = tx.update(gradient, tx.init(params), params)
        np.testing.assert_allclose(updates["kernel"], change, rtol=1e-5)


@pytest.mark.parametrize(
    "recipe, count",
    [
        # 53 convolutions of a ResNet-50, and the dense layers of the heads.
        ("simclr_resnet50", 53 + 3),
        ("byol_resnet50", 53 + 2 + 2),
        ("vicreg_resnet50", 53 + 3),
        ("barlow_twins_resnet50", 53 + 3),
        ("pirl_resnet50", 53 + 1 + 1 + 1),
        ("moco_v3_resnet50", 53 + 2 + 2),
        ("nnclr_resnet50", 53 + 3 + 2),
        ("supcon_resnet50", 53 + 3),
        ("dino_resnet50", 53 + 3 + 1),
        # Twelve blocks of four; patches, class token and positions.
        ("simclr_vit", 12 * 4 + 3 + 3),
        ("dino_vit", 12 * 4 + 3 + 3 + 1),
    ],
)
def test_exactly_what_has_more_than_one_axis_decays(recipe, count):
    """No bias and no scale of a normalisation, in the whole network of a config."""
    config = importlib.import_module(f"configs.{recipe}").get_config()
    shapes, rules = recipe_shapes(config), methods.get(config.method).RULES
    tree = traverse_util.unflatten_dict(dict.fromkeys(shapes, 0), sep="/")
    numbers = flat(optim.assign(rules, tree))
    decayed = {name for name, number in numbers.items() if rules[number].decay}
    # The lengths in PyTorch's weight norm have two axes there: [K, 1].
    decayed.discard("projector/last_layer/scale")
    assert decayed == {name for name, shape in shapes.items() if len(shape) > 1}
    assert len(decayed) == count


def test_a_parameter_without_a_rule_is_an_error():
    params = {"dense": {"kernel": jnp.zeros(2), "temperature": jnp.zeros(2)}}
    tx = optim.by_rules(optim.sgd, DECAY_KERNELS, lambda _: 0.1, weight_decay=0.0)
    with pytest.raises(ValueError, match="'dense/temperature'.*RULES"):
        tx.init(params)


def test_a_method_that_forgets_a_key_is_told(monkeypatch):
    monkeypatch.delitem(methods.simclr.OPTIMIZER, "momentum")
    config = importlib.import_module("configs.simclr_resnet50").get_config()
    with pytest.raises(ValueError, match="method simclr has no momentum: add it"):
        make_optimizer(config.to_dict(), methods.RunSize(100, 10, 256, 2560))


def test_every_method_has_a_known_recipe():
    for name in methods.NAMES:
        module = methods.get(name)
        assert module.OPTIMIZER["name"] in optim.optimizers.OPTIMIZERS, name
        assert all(isinstance(rule, Rule) for rule in module.RULES), name


def test_warmup_and_cosine():
    rate = optim.warmup_cosine(2.0, total_steps=110, warmup_steps=10)
    got = [float(rate(step)) for step in range(111)]
    want = [0.2 * s for s in range(10)]
    want += [1 + np.cos(np.pi * s / 100) for s in range(101)]
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert float(optim.warmup_cosine(2.0, 10, 0)(0)) == 2.0
    assert float(optim.warmup_cosine(2.0, 10, 0, final=0.2)(10)) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="warm-up"):
        optim.warmup_cosine(1.0, 10, 10)


def test_a_rate_that_changes_once_an_epoch():
    rate = optim.warmup_cosine(1.0, total_steps=12, warmup_steps=0, hold=4)
    got = [float(rate(step)) for step in range(12)]
    want = np.repeat([(1 + np.cos(np.pi * e / 3)) / 2 for e in range(3)], 4)
    np.testing.assert_allclose(got, want, atol=1e-6)
    # A warm-up that ends inside an epoch rises at every step.
    rate = optim.warmup_cosine(1.0, total_steps=12, warmup_steps=2, hold=4)
    got = [float(rate(step)) for step in range(12)]
    later = np.repeat([(1 + np.cos(np.pi * (s - 2) / 10)) / 2 for s in (4, 8)], 4)
    np.testing.assert_allclose(got, [0, 0.5, 1, 1, *later], atol=1e-6)


def test_names():
    with pytest.raises(ValueError, match="no optimiser 'adam'"):
        optim.get("adam")
    with pytest.raises(ValueError, match="LARC takes no schedule"):
        optim.larc(schedule, weight_decay=schedule)


def test_norms_of_leaves_of_one_size_are_taken_together(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    shapes = {"a": (3, 4), "b": (12,), "c": (), "d": (2, 6)}
    keys = jax.random.split(jax.random.key(0), len(shapes))
    tree = {
        n: jax.random.normal(k, s)
        for (n, s), k in zip(shapes.items(), keys, strict=True)
    }
    for name, norm in leaf_norms(tree).items():
        assert norm == pytest.approx(np.linalg.norm(tree[name]), rel=1e-6)
