"""Every config in configs/ makes a run: views, network, optimiser and two steps."""

import importlib
import pathlib

import jax
import numpy as np
import pytest

from configs import common
from sp_jax import methods, validate
from sp_jax.recipe import make_optimizer, make_recipe
from sp_jax.train.step import (
    by_batch,
    init_state,
    make_mesh,
    make_observe_step,
    make_train_step,
)

ROOT = pathlib.Path(__file__).parents[1]
RECIPES = sorted(
    path.stem
    for path in (ROOT / "configs").glob("*_*.py")
    if not path.stem.startswith("_")
)
IMAGES = 512


def load(name, variant=""):
    return importlib.import_module(f"configs.{name}").get_config(variant)


def two_steps(config):
    """Train two steps on noise; the losses and the state after them."""
    plain = config.to_dict()
    validate.check_keys(plain, common.get_config().to_dict())
    validate.check_values(plain)
    run = methods.Run(
        total_steps=20, steps_per_epoch=2, batch_size=8, num_images=IMAGES
    )
    recipe = make_recipe(plain, run)
    plain["optimizer"]["warmup_epochs"] = 1.0
    optimizer = make_optimizer(plain, run)
    mesh = make_mesh(jax.devices()[:1])
    state = init_state(recipe.method, optimizer.tx, recipe.views, 0, mesh)
    step = make_train_step(
        recipe.method,
        optimizer.tx,
        optimizer.schedule,
        recipe.views,
        log_every=2,
        mesh=mesh,
    )
    rng = np.random.default_rng(0)
    batches = [
        jax.device_put(
            {
                "image": rng.integers(0, 256, (8, 2, 64, 64, 3), np.uint8),
                "index": rng.permutation(IMAGES)[:16].reshape(8, 2).astype(np.int32),
            },
            by_batch(mesh),
        )
        for _ in range(2)
    ]
    if observe := make_observe_step(recipe.method, recipe.views, mesh):
        for number, batch in enumerate(batches):
            state = observe(state, batch, np.int32(number))
    metrics = []
    for batch in batches:
        state, out = step(state, batch)
        metrics.append(jax.device_get(out))
    return metrics, state


def check(metrics, state):
    assert int(state.step) == 2
    for line in metrics:
        assert all(np.isfinite(value) for value in line.values()), line
        assert line["grad_norm"] > 0
    assert metrics[1]["feature_std"] > 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))


def test_there_is_a_config_for_each_method():
    for method in methods.NAMES:
        assert f"{method}_resnet50" in RECIPES, method
    for name in RECIPES:
        assert load(name).method == name.rsplit("_", 1)[0], name


@pytest.mark.parametrize("name", RECIPES)
def test_two_steps_of_a_small_backbone(name):
    """Views, heads, buffers and optimiser of the quick variant, a network that is tiny."""
    config = load(name, "quick")
    config.image_size = 32
    if config.model.name.startswith("resnet"):
        config.model.width = 8
    config.batch_size = 8
    check(*two_steps(config))


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_two_steps_of_the_whole_recipe(name):
    config = load(name)
    assert (config.image_size, config.batch_size, config.epochs) == (64, 256, 200)
    config.batch_size = 8
    check(*two_steps(config))


def test_an_unknown_variant():
    with pytest.raises(ValueError, match="no variant 'fast'.*:quick"):
        load("simclr_resnet50", "fast")
