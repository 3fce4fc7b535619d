"""Background: what is behind the object is exchanged; the object stays as it is.

An image is (1 - share) * object + share * background, where the share of the background
is 1 - alpha. So the background is exchanged exactly, also under the soft edge of the
object, by adding share * (new - old). Where alpha is 255 not a bit changes. The level
blends the old plain colour (0) with the new background (1).
"""

from collections.abc import Callable

import jax

from eval.corruptions import patterns
from eval.corruptions.scene import Scene


def colour(key: jax.Array, scene: Scene, level: jax.Array) -> jax.Array:
    """Another plain colour, uniform in the RGB cube, so often a dark one."""
    return _exchange(patterns.colour, key, scene, level)


def gradient(key: jax.Array, scene: Scene, level: jax.Array) -> jax.Array:
    """A linear gradient between two colours."""
    return _exchange(patterns.gradient, key, scene, level)


def stripes(key: jax.Array, scene: Scene, level: jax.Array) -> jax.Array:
    """Sinusoidal stripes of two colours."""
    return _exchange(patterns.stripes, key, scene, level)


def noise(key: jax.Array, scene: Scene, level: jax.Array) -> jax.Array:
    """Noise with the spectrum of photographs."""
    return _exchange(patterns.noise, key, scene, level)


def _exchange(
    pattern: Callable[[jax.Array, int], jax.Array],
    key: jax.Array,
    scene: Scene,
    level: jax.Array,
) -> jax.Array:
    new = pattern(key, scene.images.shape[0])
    share = level * (255 - scene.alpha[..., None]) / 255
    return scene.images + share * (new - scene.behind)
