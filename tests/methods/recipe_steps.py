"""Build a whole config: shapes without memory, and a few real steps."""

import jax
import numpy as np

from sp_jax import methods
from sp_jax.recipe import make_recipe
from sp_jax.sharding import by_batch, make_mesh
from sp_jax.train.step import init_state, jit_step, make_step

IMAGES = 64


def recipe_variables(config):
    """Parameters and state of a config, of any size: shapes only, nothing is allocated."""
    run = methods.RunSize(100, 10, config.batch_size, num_images=30_000)
    recipe = make_recipe(config.to_dict(), run, train=False)
    return jax.eval_shape(recipe.init, jax.random.key(0))


def shapes_of(tree):
    """Name to shape, as "backbone/conv1/kernel"."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(str(p.key) for p in path): x.shape for path, x in flat}


def recipe_shapes(config):
    """Name to shape of each parameter of a config."""
    return shapes_of(recipe_variables(config)[0])


def train(config, steps, steps_per_epoch):
    """Train a quick config with batches of 8 at 32 px, on noise, without warm-up.

    Returns:
        The states before and after each step, on the host, and the metrics.
    """
    config.image_size, config.batch_size = 32, 8
    config.optimizer.warmup_epochs = 0.0
    if config.model.name.startswith("resnet"):
        config.model.width = 4
    plain = config.to_dict()
    run = methods.RunSize(20, steps_per_epoch, 8, IMAGES)
    recipe = make_recipe(plain, run)
    mesh = make_mesh(jax.devices()[:1])
    state = init_state(recipe, 0, mesh)
    step = jit_step(make_step(recipe, mesh), mesh)
    rng = np.random.default_rng(0)
    states, metrics = [jax.device_get(state)], []
    for _ in range(steps):
        batch = {
            "image": rng.integers(0, 256, (8, 2, 32, 32, 3), np.uint8),
            "index": rng.permutation(IMAGES)[:16].reshape(8, 2).astype(np.int32),
            "label": np.arange(8, dtype=np.int32) // 2,
        }
        state, line, _ = step(state, jax.device_put(batch, by_batch(mesh)))
        states.append(jax.device_get(state))
        metrics.append(jax.device_get(line))
    return states, metrics
