"""Draw pairs of a run's first batch, with examples of their views, for a check by eye."""

import math
import pathlib

import jax
import numpy as np

from eval.plots.figure import image_grid, save_figure
from input_pipeline.pairs.host_crops import HostCrops
from input_pipeline.pairs.training import TrainingPairs
from sp_jax.augment import finish_views, make_views
from sp_jax.recipe import Recipe


def draw_first_batch(pairs: TrainingPairs, recipe: Recipe, path: pathlib.Path) -> None:
    """Draw eight pairs beside views from a separate key, unless the file exists."""
    if path.exists():
        return
    batch, store = pairs.sampler.batch(0), pairs.shown
    images = store.images[batch["index"][:8]]
    if store.coded:
        crops = HostCrops(store.images, recipe.crops, pairs.sampler.seed)
        shown = crops.read(0, batch, slice(8))["crops"]
        make = jax.jit(lambda key, x: finish_views(key, x, recipe.views))
    else:
        shown = images
        make = jax.jit(lambda key, x: make_views(key, x, recipe.views)[0])
    mean, std = np.array(recipe.views[0].mean), np.array(recipe.views[0].std)
    views = [
        _tile(np.clip(np.asarray(view) * std + mean, 0, 1))
        for view in make(jax.random.key(0), shown)
    ]
    rows = [[*images[i], *(view[i] for view in views)] for i in range(len(images))]
    stored = ["image"] if images.shape[1] == 1 else ["first", "second"]
    titles = stored + [f"view {i + 1}" for i in range(len(views))]
    caption = f"{len(images)} of {len(pairs.table):,} pairs and their views"
    save_figure(image_grid(rows, titles, caption=caption), path)


def _tile(view: np.ndarray) -> np.ndarray:
    """Patches [n, g * g, p, p, 3] side by side with white lines: [n, s, s, 3]."""
    if view.ndim == 4:
        return view
    n, count, p = view.shape[:3]
    grid = math.isqrt(count)
    framed = np.pad(view, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1.0)
    rows = framed.reshape(n, grid, grid, p + 2, p + 2, 3).swapaxes(2, 3)
    return rows.reshape(n, grid * (p + 2), grid * (p + 2), 3)
