"""`benchmarks.peers` compares like with like, and runs."""

import dataclasses
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import peers
from input_pipeline.store import open_store
from sp_jax import losses, optim
from sp_jax.augment import Augment, augment
from sp_jax.methods import Run
from sp_jax.recipe import make_recipe
from tests.torchvision_ref import torch

peers_torch = pytest.importorskip("benchmarks.peers_torch")


@pytest.fixture(scope="module")
def drawings():
    return open_store("emoji")


def parse(**flags):
    return peers.parse([f"--{name}={value}" for name, value in flags.items()])


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (losses.nt_xent, peers_torch.nt_xent),
        (losses.vicreg, peers_torch.vicreg),
        (losses.byol, peers_torch.cosine_distance),
    ],
)
def test_same_losses(ours, theirs):
    x, y = np.random.default_rng(0).normal(size=(2, 16, 8)).astype(np.float32)
    options = {"temperature": 0.1} if ours is losses.nt_xent else {}
    a, b = (torch.tensor(z, requires_grad=True) for z in (x, y))
    expected = theirs(a, b, **options)
    expected.backward()
    value, grad = jax.value_and_grad(lambda z: ours(z, y, **options))(x)
    assert float(value) == pytest.approx(expected.item(), rel=1e-5)
    np.testing.assert_allclose(grad, a.grad, atol=1e-4)


@pytest.mark.parametrize(
    "method, model",
    [("simclr", "resnet50"), ("simclr", "vit_small"), ("vicreg", "resnet50"),
     ("byol", "resnet18")],
)  # fmt: skip
def test_same_networks(method, model, drawings):
    if model == "vit_small":
        pytest.importorskip("timm")
    config = peers.make_config(parse(method=method, model=model, batch_size=8))
    recipe = make_recipe(config.to_dict(), Run(10, 5, 8, 16))
    views = [jnp.zeros((2, *view.shape)) for view in recipe.views]
    params, state = jax.eval_shape(recipe.method.init, jax.random.key(0), views)
    ours = sum(x.size for x in jax.tree.leaves(params))

    work = peers.make_work(config, drawings)
    with torch.device("meta"):
        plain = peers_torch.make_method(work, lightly=False)
    assert count(plain) == ours
    if method == "byol":
        target = sum(x.size for x in jax.tree.leaves(state["target"]))
        assert sum(p.numel() for p in plain.target.parameters()) == target


def test_networks_of_lightly_differ_by_biases_only(drawings):
    pytest.importorskip("lightly")
    for method, more in {
        "simclr": 128,
        "vicreg": 8192 - 2 * 8192,
        "byol": 512 - 2 * 4096,
    }.items():
        config = peers.make_config(parse(method=method, model="resnet18"))
        work = peers.make_work(config, drawings)
        with torch.device("meta"):
            one, other = (peers_torch.make_method(work, x) for x in (True, False))
        assert count(one) - count(other) == more


def count(module):
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


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
    tx = optim.get(
        "lars", lambda _: 0.5, peak=0.5, rules=optim.KERNELS, weight_decay=0.1
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


@pytest.mark.parametrize("library", ["torchvision", "kornia"])
@pytest.mark.parametrize("operation", ["flip", "grayscale", "solarize"])
def test_same_views(library, operation, drawings):
    """Each operation for sure, on the whole image: what is left is not random."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    view = Augment(
        crop_scale=(1.0, 1.0),
        crop_ratio=(1.0, 1.0),
        **dict.fromkeys(("flip", "jitter", "grayscale", "blur"), 0.0)
        | {operation: 1.0},
    )
    images = drawings.images[np.arange(8)]
    fields = dataclasses.asdict(view) | {"kernel_size": view.kernel_size or 1}
    make = getattr(peers_torch, f"{library}_view")(fields)
    theirs = make(torch.tensor(images).permute(0, 3, 1, 2).float() / 255)
    ours = augment(jax.random.key(0), images, view)
    np.testing.assert_allclose(theirs.permute(0, 2, 3, 1), ours, atol=1e-2)


@pytest.fixture
def torch_settings():
    """The command changes settings of the whole process."""
    threads = torch.get_num_threads()
    precision = torch.get_float32_matmul_precision()
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.benchmark = False


def test_command(capsys, monkeypatch, torch_settings):
    pytest.importorskip("timm")

    def tiny(args, make=peers.make_config):
        config = make(args)
        config.model.update(name="vit_tiny", patch_size=16, depth=1)
        return config

    monkeypatch.setattr(peers, "make_config", tiny)
    peers.main(
        ["--model=vit_small", "--batch_size=8", "--steps=1", "--rounds=1",
         "--compile=off", "--workers=1"]
    )  # fmt: skip
    *_, table, line = capsys.readouterr().out.splitlines()
    assert table.startswith("| torch, step only |")
    steps = json.loads(line)["steps"]
    assert list(steps)[0] == "sp_jax"
    assert ("lightly" in steps) == (importlib.util.find_spec("lightly") is not None)
    for row in steps.values():
        ratio = steps["sp_jax"]["pairs_per_s"][0] / row["pairs_per_s"][0]
        assert row["ratio"] == [pytest.approx(ratio)]
