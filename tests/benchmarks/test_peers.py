"""`benchmarks.peers` compares like with like."""

import contextlib
import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import peers
from benchmarks.common import take_turns
from benchmarks.training import make_config
from input_pipeline.stores import open_store
from sp_jax import losses, optim
from sp_jax.augment import Augment, augment
from sp_jax.methods import RunSize
from sp_jax.recipe import make_recipe
from tests.torchvision_ref import torch

pytest.importorskip("timm")
peers_torch = pytest.importorskip("benchmarks.peers_torch")


@pytest.fixture(scope="module")
def drawings():
    return open_store("emoji")


def features(shape):
    x, y = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    return x, y, *(torch.tensor(z, requires_grad=True) for z in (x, y))


@pytest.mark.parametrize(
    "ours, theirs, options",
    [
        (losses.nt_xent, peers_torch.nt_xent, {"temperature": 0.1}),
        (losses.vicreg, peers_torch.vicreg, {}),
    ],
)
def test_same_losses(ours, theirs, options):
    x, y, a, b = features((16, 8))
    expected = theirs(a, b, **options)
    expected.backward()
    value, grad = jax.value_and_grad(lambda z: ours(z, y, **options))(x)
    assert float(value) == pytest.approx(expected.item(), rel=1e-5)
    np.testing.assert_allclose(grad, a.grad, atol=1e-4)


def test_loss_of_lightly_is_ours():
    lightly = pytest.importorskip("lightly.loss")
    x, y, a, b = features((16, 8))
    expected = lightly.NTXentLoss(0.2)(a, b)
    assert float(losses.nt_xent(x, y, 0.2)) == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    "method, model",
    [("simclr", "resnet50"), ("simclr", "resnet18:small"), ("simclr", "vit_small"),
     ("vicreg", "resnet18"), ("simclr", "quick")],
)  # fmt: skip
def test_same_networks(method, model, drawings):
    config = make_config(method, model, 8)
    recipe = make_recipe(config.to_dict(), RunSize(10, 5, 8, 16), train=False)
    views = [jnp.zeros((2, *view.shape)) for view in recipe.views]
    params, _ = jax.eval_shape(recipe.method.init, jax.random.key(0), views)
    with torch.device("meta"):
        network = peers_torch.make_method(peers.make_work(config, drawings), False)
    theirs = sum(p.numel() for p in network.parameters())
    assert theirs == sum(x.size for x in jax.tree.leaves(params))


def test_same_lars():
    rng = np.random.default_rng(0)
    params = {"kernel": rng.normal(size=(4, 3)), "bias": rng.normal(size=3)}
    params = {"dense": {k: jnp.float32(x) for k, x in params.items()}}
    theirs = [torch.tensor(np.array(params["dense"][k])) for k in ("kernel", "bias")]
    for p in theirs:
        p.requires_grad_()
    groups = [
        {"params": [p], "weight_decay": decay}
        for p, decay in zip(theirs, (0.1, 0.0), strict=True)
    ]
    lars = peers_torch.Lars(groups, lr=0.5, momentum=0.9)
    tx = optim.by_rules(
        optim.lars, optim.DECAY_KERNELS, lambda _: 0.5, weight_decay=0.1
    )
    state = tx.init(params)
    for _ in range(3):
        grads = jax.tree.map(lambda p: jnp.float32(rng.normal(size=p.shape)), params)
        for name, p in zip(("kernel", "bias"), theirs, strict=True):
            p.grad = torch.tensor(np.array(grads["dense"][name]))
        lars.step()
        updates, state = tx.update(grads, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    for name, p in zip(("kernel", "bias"), theirs, strict=True):
        np.testing.assert_allclose(params["dense"][name], p.detach(), rtol=1e-5)


@pytest.mark.parametrize("operation", ["flip", "grayscale", "solarize"])
def test_same_views(operation, drawings):
    """Each operation for sure, on the whole image: what is left is not random."""
    pytest.importorskip("kornia")
    view = Augment(
        crop_scale=(1.0, 1.0),
        crop_ratio=(1.0, 1.0),
        **dict.fromkeys(("flip", "jitter", "grayscale", "blur"), 0.0)
        | {operation: 1.0},
    )
    images = drawings.images[np.arange(8)]
    make = peers_torch.kornia_view(dataclasses.asdict(view) | {"kernel_size": 0})
    theirs = make(torch.tensor(images).permute(0, 3, 1, 2).float() / 255)
    ours = augment(jax.random.key(0), images, view)
    np.testing.assert_allclose(theirs.permute(0, 2, 3, 1), ours, atol=1e-2)


@pytest.mark.parametrize("method", ["simclr", "vicreg"])
def test_views_of_lightly_are_its_defaults(method, drawings):
    """What the recipe says gives the transforms that lightly has for the method."""
    transforms = pytest.importorskip("lightly.transforms")
    work = peers.make_work(make_config(method, "resnet18", 8), drawings)
    if method == "simclr":
        defaults = transforms.SimCLRTransform(input_size=64).transforms
    else:  # sp_jax has the views of BYOL for VICReg
        defaults = (
            transforms.BYOLView1Transform(input_size=64),
            transforms.BYOLView2Transform(input_size=64),
        )
    for view, default in zip(work.views, defaults, strict=True):
        ours = described(peers_torch.lightly_view(view).transform.transforms)
        assert len(ours) >= 7
        assert ours == described(default.transform.transforms)


def described(transforms):
    """Types and arguments of the operations that ever happen."""
    found = []
    for x in transforms:
        options = {k: v for k, v in vars(x).items() if k[0] != "_"}
        for name in ("transform", "transforms"):  # compared as `inner`, if at all
            options.pop(name, None)
        inner = getattr(x, "transforms", [])
        if options.get("p", options.get("prob")) != 0:
            values = [tuple(v) if isinstance(v, list) else v for v in options.values()]
            found.append((type(x), list(options), values, described(inner)))
    return found


def test_rows():
    config = make_config("simclr", "resnet50:small", 20)
    sides = [
        peers.Side("cpu", {"sp_jax": "a"}, {"sp_jax": fake(0.1, 0.2, 0.4, 0.1)}),
        peers.Side("cpu", {"torch": "b, c"}, {"torch": fake(9.0, 0.4, 0.4, 0.3)}),
    ]
    turns = {
        name: functools.partial(turn, 7)
        for name, turn in (sides[0].turns | sides[1].turns).items()
    }
    found = take_turns(turns, 3, warm_up=1)
    ours, torchs = peers.make_rows(config, sides, found)
    assert ours["pairs_per_s"] == pytest.approx([100, 50, 200])
    assert torchs["ratio"] == pytest.approx([2, 1, 3])
    assert peers.markdown(ours) == (
        "| simclr | resnet50:small | sp_jax | a | 100.0 | 50.0 to 200.0 |  |  |"
    )
    assert peers.markdown(torchs) == (
        "| simclr | resnet50:small | torch | b, c | 50.0 | 50.0 to 66.7 "
        "| 2.00 | 1.00 to 3.00 |"
    )
    assert json.loads(json.dumps(torchs))["versions"]["torch"]


def fake(*seconds):
    remaining = iter(seconds)

    def turn(steps):
        assert steps == 7
        return next(remaining)

    return turn


@pytest.mark.slow
def test_peers_take_turns_in_a_process(drawings):
    for package in ("kornia", "lightly"):
        pytest.importorskip(package)
    config = make_config("simclr", "vit_tiny", 8)
    config.model.update(patch_size=16, depth=1)
    names = ["lightly", "torch_step", "torch"]
    with peers.process(eager_side, peers.make_work(config, drawings), names) as side:
        assert list(side.settings) == list(side.turns) == names
        for name, turn in side.turns.items():
            assert "eager" in side.settings[name]
            assert turn(2) > 0


@contextlib.contextmanager
def eager_side(work, names):
    """In a process: does not try settings, and reads with one worker."""
    peers_torch.fastest_step = eager
    peers_torch.cores = lambda: 1
    with peers.torch_side(work, names) as side:
        yield side


def eager(work, views, lightly):
    assert [x.shape for x in views] == [(8, 3, 64, 64)] * 2
    step = peers_torch.make_step(work, views, lightly, torch.channels_last)
    return step, "eager"


@pytest.mark.slow
def test_process_that_fails_is_said(capfd):
    with pytest.raises(SystemExit, match="see its output for the reason"):
        with peers.process(failing_side):
            pass
    assert "out of memory" in capfd.readouterr().err


@contextlib.contextmanager
def failing_side():
    raise MemoryError("out of memory")
    yield
