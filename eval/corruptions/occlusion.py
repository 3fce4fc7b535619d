"""Occlusion: parts of the image are hidden."""

import jax
import jax.numpy as jnp

from eval.corruptions.scene import Scene

_GRID = 8
_GREY = 128.0


def patches(key: jax.Array, scene: Scene, level: jax.Array) -> jax.Array:
    """A share of the squares of an 8 x 8 grid becomes grey (128).

    The squares come in one random order an image: what is hidden at one level is hidden
    at all higher ones. The share is rounded to whole squares.
    """
    size = scene.images.shape[0]
    place = jax.random.permutation(key, _GRID**2)
    hidden = place < jnp.round(level * _GRID**2)
    cell = jnp.arange(size) * _GRID // size
    hidden = hidden.reshape(_GRID, _GRID)[cell[:, None], cell[None]]
    return jnp.where(hidden[..., None], _GREY, scene.images)
