"""The papers' probes: optimisers against PyTorch's, learning, and a backbone that stays."""

import dataclasses
import types

import jax
import numpy as np
import optax
import pytest
import torch

import eval as evaluators
from eval import linear_probe
from eval.during import make_evaluations
from eval.evaluator import Evaluator, Number
from eval.probe_paper import find_recipe, make_optimizer, recipes
from input_pipeline.stores import ImageStore
from sp_jax import methods, models
from sp_jax.augment import augment
from sp_jax.backbone import Backbone
from sp_jax.config import get_config
from sp_jax.errors import UserError
from sp_jax.features import Extractor

SPLITS = dict(dataset="tiny", train_split="train", test_split="test")
PAPER = dict(**SPLITS, protocol="paper")
HALF = (0.5, 0.5, 0.5)


@pytest.fixture
def backbone():
    """A small ViT whose variables are NumPy arrays, so that a test can spoil them."""
    module = models.get(
        "vit_tiny", dim=16, depth=1, heads=2, patch_size=8, image_size=16
    )
    x = np.zeros((1, 16, 16, 3), np.float32)
    variables = jax.jit(module.init, static_argnums=2)(jax.random.key(0), x, False)
    variables = jax.tree.map(np.array, variables)
    info = {"config": {"method": "simclr"}}
    return Backbone(module, variables, 16, HALF, HALF, info)


@pytest.fixture
def colours(make_store, provide):
    """Three classes by the brightest colour, all pixels of an image alike."""

    def store(split, seed):
        rng = np.random.default_rng(seed)
        labels = np.arange(48) % 3
        values = 80 + 80 * np.eye(3)[labels] + 20 * rng.normal(size=(48, 3))
        return make_store(np.clip(np.tile(values, 4), 0, 255), labels, split)

    provide(store("train", 0), store("test", 1))


def by_torch(recipe, steps, start, gradients):
    """Weights after each step of PyTorch's optimiser and schedule."""
    weight = torch.nn.Parameter(torch.tensor(start))
    sgd = torch.optim.SGD(
        [weight],
        lr=recipe.peak,
        momentum=0.9,
        nesterov=recipe.nesterov,
        weight_decay=0 if recipe.larc else recipe.weight_decay,
    )
    schedulers = torch.optim.lr_scheduler
    if recipe.drops:
        schedule = schedulers.MultiStepLR(sgd, recipe.drops)
    else:
        length = recipe.epochs * (steps if recipe.every_step else 1)
        schedule = schedulers.CosineAnnealingLR(sgd, length)
    path = []
    for number, gradient in enumerate(gradients):
        gradient = torch.tensor(gradient)
        if recipe.larc:  # apex's, without decay
            gradient = gradient * 0.001 * weight.detach().norm() / gradient.norm()
        weight.grad = gradient
        sgd.step()
        path.append(weight.detach().numpy().copy())
        if recipe.every_step or (number + 1) % steps == 0:
            schedule.step()
    return path


@pytest.mark.parametrize("name", recipes())
def test_optimiser_is_pytorchs(name):
    steps = 2
    recipe = recipes()[name]
    rng = np.random.default_rng(0)
    start = rng.standard_normal((4, 3))
    gradients = rng.standard_normal((recipe.epochs * steps, 4, 3))
    want = by_torch(recipe, steps, start, gradients)
    with jax.enable_x64(True):
        tx = make_optimizer(recipe, steps)

        def step(carry, gradient):
            updates, state = tx.update(gradient, carry[1], carry[0])
            weight = optax.apply_updates(carry[0], updates)
            return (weight, state), weight

        got = jax.lax.scan(step, (start, tx.init(start)), gradients)[1]
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-9)


def test_it_learns_by_the_recipe(colours, backbone, monkeypatch):
    views = []

    def spy(key, images, view):
        views.append(view)
        return augment(key, images, view)

    monkeypatch.setattr("eval.supervised.augment", spy)
    options = dict(**PAPER, epochs=30, batch_size=16, recipe="byol")
    result = linear_probe.create(**options)(Extractor(backbone), 0)
    assert result["accuracy"] > 0.8  # chance is 1 / 3
    assert (result["epochs"], result["batch_size"]) == (30, 16)
    assert result["learning_rate"] == pytest.approx(0.2 * 16 / 256)
    text = linear_probe.create(**options).protocol
    assert "crops and flips as byol does, 30 epochs, 16 images a batch (seed 0)" in text
    (view,) = views  # compiled once
    assert (view.crop_scale, view.flip, view.size) == ((0.08, 1.0), 0.5, 16)
    assert view.jitters == () and view.grayscale == view.kernel_size == 0


def test_seeds_and_small_sets(colours, backbone):
    evaluate = linear_probe.create(**PAPER, epochs=2, seeds=2)
    result = evaluate(Extractor(backbone), 0)
    # Of fewer images than the recipe's batch all are one; the rate follows.
    assert (result["batch_size"], result["learning_rate"]) == (48, 0.1 * 48 / 256)
    assert "accuracy_std" in result and "val_accuracy" not in result
    assert evaluate(Extractor(backbone), 0) == result


def test_drops_follow_the_epochs_and_rates_the_batch_where_the_source_does():
    moco, simclr = recipes()["moco_v2"], recipes()["simclr"]
    assert moco.resized(50, 64)[:4] == (30.0, 64, 50, False)
    assert moco.resized(50, 64).drops == (30, 40) and moco.resized(50, 64).peak == 30
    assert simclr.peak == pytest.approx(1.6)
    assert simclr.resized(0, 512).peak == pytest.approx(0.2)
    assert simclr.resized() == simclr


def test_each_method_has_a_recipe(backbone):
    assert find_recipe(None, backbone) is recipes()["simclr"]
    of_dino = dataclasses.replace(backbone, info={"method": "dino"})
    assert find_recipe(None, of_dino) is recipes()["dino"]
    resnet = dataclasses.replace(of_dino, module=models.get("resnet18"))
    assert find_recipe(None, resnet) is recipes()["dino_resnet"]
    assert set(methods.NAMES) <= set(recipes())


def test_a_training_knows_its_method(backbone, tmp_path, monkeypatch):
    """So that the recipe of the run is the default there, too."""

    def measure(extractor, step):
        return {"byol": find_recipe(None, extractor.backbone) is recipes()["byol"]}

    evaluate = Evaluator("p", measure, (Number("byol"),), (), "mine")
    monkeypatch.setattr(evaluators, "make", lambda kind, options: evaluate)
    config = get_config()
    config.method, config.evals = "byol", {"mine": {"type": "mine"}}
    state = types.SimpleNamespace(params=None, method_state=None)
    recipe = types.SimpleNamespace(
        freeze=lambda *_, **info: dataclasses.replace(backbone, info=info)
    )
    (evaluation,) = make_evaluations(config, recipe, tmp_path, 10)
    assert evaluation.measure(state, 5) == {"mine/byol": 1}


@pytest.mark.parametrize("protocol", ["sweep", "paper"])
def test_a_changed_backbone_is_an_error(protocol, colours, backbone, monkeypatch):
    read = ImageStore.read

    def spoil(self, rows):
        bias = backbone.variables["params"]["norm"]["bias"]
        bias[0] = np.nextafter(bias[0], 1, dtype=np.float32)  # one bit
        return read(self, rows)

    options = dict(**SPLITS, protocol=protocol, batch_size=16, epochs=1)
    evaluate = linear_probe.create(**options)
    before = backbone.fingerprint()
    evaluate(Extractor(backbone), 0)
    assert backbone.fingerprint() == before
    monkeypatch.setattr(ImageStore, "read", spoil)
    with pytest.raises(RuntimeError, match="backbone changed"):
        evaluate(Extractor(backbone), 0)


def test_what_does_not_fit_is_said(colours, backbone, pixels):
    with pytest.raises(UserError, match="needs a backbone, not a function"):
        linear_probe.create(**PAPER)(Extractor(pixels), 0)
    unknown = dataclasses.replace(backbone, info={})
    with pytest.raises(
        UserError, match="no default recipe, because the method is unknown: choose"
    ):
        linear_probe.create(**PAPER)(Extractor(unknown), 0)
    with pytest.raises(UserError, match="split over 8 devices"):
        linear_probe.create(**PAPER, batch_size=4)(Extractor(backbone), 0)
