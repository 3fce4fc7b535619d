"""Every config in configs/ makes a run: views, network, optimiser, two steps, resumption."""

import importlib
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sp_jax import methods, validate
from sp_jax import sharding as mesh_module
from sp_jax.recipe import make_recipe, view_configs
from sp_jax.sharding import by_batch, make_mesh
from sp_jax.train.banks import make_fill_banks
from sp_jax.train.checkpoint import Checkpoints
from sp_jax.train.step import init_state, jit_step, make_step
from tests.methods.build import leaves, shallow_resnet

ROOT = pathlib.Path(__file__).parents[1]
RECIPES = sorted(
    path.stem
    for path in (ROOT / "configs").glob("*.py")
    if path.stem.endswith(("_resnet50", "_vit"))
)
IMAGES = 512


@pytest.fixture(autouse=True, scope="module")
def _shallow():
    with shallow_resnet():
        yield


def load(name, variant=""):
    return importlib.import_module(f"configs.{name}").get_config(variant)


def two_steps(config, devices=1, folder=None, fsdp=1):
    """Train two steps on noise.

    Returns:
        The metrics of both steps, the parameters before them, and the state after them;
        with a folder also the state of a run that goes on from a checkpoint between the
        two.
    """
    plain = config.to_dict()
    validate.check_training(plain)
    size = config.batch_size
    run = methods.RunSize(
        total_steps=20, steps_per_epoch=2, batch_size=size, num_images=IMAGES
    )
    plain["optimizer"]["warmup_epochs"] = 0.0  # so that the first step moves, too
    recipe = make_recipe(plain, run)
    mesh = make_mesh(jax.devices()[:devices], fsdp)
    state = init_state(recipe, 0, mesh)
    before = leaves(jax.tree.map(np.array, state.params))  # the step takes the memory
    step = jit_step(make_step(recipe, mesh), mesh)
    rng = np.random.default_rng(0)
    pairs = rng.permutation(IMAGES)[: 4 * size].reshape(2, size, 2).astype(np.int32)
    batches = [
        jax.device_put(
            {
                "image": rng.integers(0, 256, (size, 2, 64, 64, 3), np.uint8),
                "index": index,
                "label": rng.integers(-1, 4, size, np.int32),
            },
            by_batch(mesh),
        )
        for index in pairs
    ]
    if fill_banks := make_fill_banks(recipe, mesh):
        for number, batch in enumerate(batches):
            state = fill_banks(state, batch, np.int32(number))
    state, first, _ = step(state, batches[0])
    resumed = None
    if folder:
        template = jax.tree.map(jnp.zeros_like, state)
        checkpoints = Checkpoints(folder, keep_last=2, keep_every=0)
        checkpoints.save(1, state, {})
        checkpoints.close()
        checkpoints = Checkpoints(folder, keep_last=2, keep_every=0)
        resumed, *_ = step(checkpoints.restore(template)[0], batches[1])
        checkpoints.close()
    state, second, features = step(state, batches[1])
    second["features"] = jnp.std(features)
    return jax.device_get((first, second)), before, state, resumed


# What the recipe does not train in its first epoch.
RESTING = {
    "moco_v3_vit": "^backbone/patch_embed/",
    "dino_resnet50": "^projector/last_layer/",
    "dino_vit": "^projector/last_layer/",
    "swav_resnet50": "^prototypes/",
}


def check(name, metrics, before, state):
    assert int(state.step) == 2
    for line in metrics:
        assert all(np.isfinite(value) for value in line.values()), line
        assert line["grad_norm"] > 0
    assert metrics[1].pop("features") > 0
    after = leaves(state.params)
    assert all(np.isfinite(x).all() for x in after.values())
    resting = {n for n in before if re.search(RESTING.get(name, "^$"), n)}
    assert bool(resting) == (name in RESTING)
    # A normalisation takes the bias before it away: no gradient but rounding.
    norms = leaves(state.method_state["batch_stats"])
    mute = {
        n
        for n in before
        if re.search(r"dense\d/bias$", n)
        and n.replace("dense", "bn").removesuffix("bias") + "mean" in norms
    }
    for n, old in before.items():
        if n in resting:
            np.testing.assert_allclose(after[n], old, rtol=1e-5, atol=1e-7, err_msg=n)
        elif n not in mute:
            assert np.any(after[n] != old), n


def small(name):
    """The quick variant with a network that is tiny."""
    config = load(name, "quick")
    config.image_size = 32
    if config.model.name.startswith("resnet"):
        config.model.width = 8
    config.batch_size = 16
    if name == "moco_v2_resnet50":
        # In groups of 4 one ReLU at its kink is a hundredth of the gradient.
        config.method_options.bn_groups = 2
    if name == "nnclr_resnet50":
        config.method_options.queue_size = 32
    if name == "swav_resnet50":
        config.method_options.queue_size = 16  # full after the first step
        config.method_options.queue_starts = 0.0
    return config


def test_there_is_a_config_for_each_method():
    for method in methods.NAMES:
        assert f"{method}_resnet50" in RECIPES, method
    assert {"simclr_vit", "moco_v3_vit", "dino_vit"} < set(RECIPES)
    for name in RECIPES:
        assert load(name).method == name.rsplit("_", 1)[0], name


@pytest.mark.parametrize("variant", ["", "quick"])
def test_tiny_imagenet_is_simclr_on_other_images(variant):
    config, simclr = load("tiny_imagenet", variant), load("simclr_resnet50", variant)
    plain = config.to_dict()
    validate.check_training(plain)
    for part in ("method", "method_options", "model", "optimizer", "batch_size"):
        assert plain[part] == simclr.to_dict()[part]
    # The views of the method, also where the drawings need others.
    official = view_configs(load("simclr_resnet50").to_dict())
    assert repr(view_configs(plain)) == repr(official)


def test_tiny_imagenet_with_fewer_colours():
    # SimCLR's strengths are 0.8 for brightness, contrast and saturation, and 0.2 for hue.
    config = load("tiny_imagenet", "quick")
    config.augment.update(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    assert load("tiny_imagenet", "quick_half").to_json() == config.to_json()
    config.augment.update(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05)
    config.augment.update(jitter=0.8, grayscale=0.0, blur=0.0)
    assert load("tiny_imagenet", "quick_faint").to_json() == config.to_json()


# Methods on another backbone, and those that are made like SimCLR.
ALIKE = {"moco_v3_resnet50", "dino_resnet50", "simclr_vit"}
ALIKE |= {"simsiam_resnet50", "barlow_twins_resnet50"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in ALIKE else ())
        for name in RECIPES
    ],
)
def test_two_steps_of_a_small_backbone(name, tmp_path):
    """Views, heads, buffers and optimiser of the quick variant; resumed bit by bit."""
    with shallow_resnet():
        metrics, before, state, resumed = two_steps(small(name), folder=tmp_path)
    check(name, metrics, before, state)
    whole, _ = jax.tree_util.tree_flatten_with_path(state)
    for (path, a), b in zip(whole, jax.tree.leaves(resumed), strict=True):
        where = jax.tree_util.keystr(path)
        np.testing.assert_array_equal(a, b, err_msg=where)


# SimCLR's turn is in tests/train/test_devices.py. Each takes a quarter of a minute: here are
# a moving average and banks; the others are slow tests.
@pytest.mark.parametrize(
    ("name", "fsdp"),
    [
        ("byol_resnet50", 2),
        ("deepcluster_resnet50", 2),  # both banks are split
        pytest.param("moco_v2_resnet50", 2, marks=pytest.mark.slow),  # so is the queue
        pytest.param("swav_resnet50", 1, marks=pytest.mark.slow),
        pytest.param("simsiam_resnet50", 1, marks=pytest.mark.slow),
        pytest.param("vicreg_resnet50", 2, marks=pytest.mark.slow),
        pytest.param("barlow_twins_resnet50", 1, marks=pytest.mark.slow),
        pytest.param("moco_v3_vit", 4, marks=pytest.mark.slow),
        pytest.param("nnclr_resnet50", 2, marks=pytest.mark.slow),
        pytest.param("pirl_resnet50", 1, marks=pytest.mark.slow),
        pytest.param("supcon_resnet50", 1, marks=pytest.mark.slow),
        pytest.param("dino_resnet50", 2, marks=pytest.mark.slow),
    ],
)
def test_eight_devices_are_one(name, fsdp, monkeypatch):
    monkeypatch.setattr(mesh_module, "MIN_SIZE", 256)  # the network is tiny
    with shallow_resnet():
        one, _, state, _ = two_steps(small(name))
        eight, _, many, _ = two_steps(small(name), devices=8, fsdp=fsdp)
    for a, b in zip(one, eight, strict=True):
        for key in a:
            assert a[key] == pytest.approx(b[key], rel=5e-3, abs=1e-3), key
    parts = [(s.params, s.method_state) for s in (state, many)]
    whole, _ = jax.tree_util.tree_flatten_with_path(parts[0])
    for (path, a), b in zip(whole, jax.tree.leaves(parts[1]), strict=True):
        where = jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=2e-3, err_msg=where)
        shard = b.addressable_shards[0].data
        assert shard.size * (fsdp if b.size >= 256 else 1) == b.size, where


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_two_steps_of_the_whole_recipe(name):
    config = load(name)
    official = methods.get(config.method).OPTIMIZER["learning_rate"]
    rate = config.optimizer.learning_rate or official
    config.optimizer.learning_rate = 256 / 8 * rate  # that of the whole batch
    config.batch_size = 8
    metrics, before, state, _ = two_steps(config)
    check(name, metrics, before, state)


def test_an_unknown_variant():
    with pytest.raises(ValueError, match="no variant 'fast'.*:quick"):
        load("simclr_resnet50", "fast")
