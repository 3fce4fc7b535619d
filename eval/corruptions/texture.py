"""Pattern and texture: the surface changes and the shape stays, or vice versa."""

import jax
import jax.numpy as jnp

from eval.corruptions import patterns
from eval.corruptions.scene import Scene

_FINEST = 16  # squares a side


def shuffle(key: jax.Array, scene: Scene, level: jax.Array) -> jax.Array:
    """Shuffle the squares of a grid of level x level.

    Texture inside a square stays, shape is lost. Where the side of the image is no
    multiple of the level, a margin at the right and at the bottom stays.
    """
    size = scene.images.shape[0]
    grid = jnp.clip(level.astype(jnp.int32), 1, _FINEST)
    slot = jnp.arange(_FINEST**2)
    # A random order of the first grid * grid slots; the other ones go to the end.
    weight = jnp.where(slot < grid**2, jax.random.uniform(key, slot.shape), jnp.inf)
    order = jnp.argsort(weight)
    side = size // grid
    y, x = jnp.arange(size)[:, None], jnp.arange(size)[None]
    source = order[jnp.minimum(y // side * grid + x // side, _FINEST**2 - 1)]
    from_y = source // grid * side + y % side
    from_x = source % grid * side + x % side
    inside = (jnp.maximum(y, x) < grid * side)[..., None]
    return jnp.where(inside, scene.images[from_y, from_x], scene.images)


def amplitude(key: jax.Array, scene: Scene, level: jax.Array) -> jax.Array:
    """Blend the Fourier amplitude with another image's; the phase, and so the shape, stays.

    After Yang and Soatto, FDA (https://arxiv.org/abs/2004.05498) and Xu et al.
    (https://arxiv.org/abs/2105.11120), over all frequencies, by channel.
    """
    del key  # The other image has been chosen before.
    own, other = (jnp.fft.fft2(x, axes=(0, 1)) for x in (scene.images, scene.others))
    size = (1 - level) * jnp.abs(own) + level * jnp.abs(other)
    mixed = size * jnp.exp(1j * jnp.angle(own))
    return jnp.fft.ifft2(mixed, axes=(0, 1)).real


def surface(key: jax.Array, scene: Scene, level: jax.Array) -> jax.Array:
    """Blend the object's inside with stripes of two colours; its silhouette stays."""
    new = patterns.stripes(key, scene.images.shape[0])
    share = level * scene.alpha[..., None] / 255
    return scene.images + share * (new - scene.images)
