"""Pairs of a run's first batch, with examples of their views, as a person checks them."""

import pathlib

import jax

from eval.plots.images import save_views
from input_pipeline.pairs.training import TrainingPairs
from sp_jax.augment import make_views
from sp_jax.recipe import Recipe


def draw_first_batch(pairs: TrainingPairs, recipe: Recipe, path: pathlib.Path) -> None:
    """Draw eight pairs with views of a key of their own, unless the file is there."""
    if path.exists():
        return
    images = pairs.shown.images[pairs.sampler.batch(0)["index"][:8]]
    views = jax.jit(lambda key, x: make_views(key, x, recipe.views)[0])
    first = recipe.views[0]
    save_views(path, images, views(jax.random.key(0), images), first.mean, first.std)
