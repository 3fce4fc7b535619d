"""Background: the background is replaced; the object stays unchanged.

An image is (1 - share) * object + share * background, where the share of the background
is 1 - alpha. So the background is exchanged exactly, also under the soft edge of the
object, by adding share * (new - old). Where alpha is 255 not a bit changes. The level
blends the old plain colour (0) with the new background (1).
"""

from collections.abc import Callable

import jax

from eval.corruptions.scene import Scene


def exchange(
    pattern: Callable[[jax.Array, int], jax.Array],
    key: jax.Array,
    scene: Scene,
    level: jax.Array,
) -> jax.Array:
    """Put a pattern of `eval.corruptions.patterns` behind the object."""
    new = pattern(key, scene.images.shape[0])
    share = level * (255 - scene.alpha[..., None]) / 255
    return scene.images + share * (new - scene.behind)
