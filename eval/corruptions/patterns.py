"""Patterns that cover an image: float32 [size, size, 3] in [0, 255], from a key."""

import jax
import jax.numpy as jnp

_CYCLES = (4.0, 12.0)  # stripes an image
_NOISE_STD = 0.2 * 255  # in each channel


def colour(key: jax.Array, size: int) -> jax.Array:
    """One colour, uniform in the RGB cube."""
    return jnp.broadcast_to(_colours(key, 1)[0], (size, size, 3))


def gradient(key: jax.Array, size: int) -> jax.Array:
    """From one colour at one edge to another at the opposite one, in any direction."""
    direction, colours = jax.random.split(key)
    first, second = _colours(colours, 2)
    return first + ramp(direction, size)[..., None] * (second - first)


def stripes(key: jax.Array, size: int) -> jax.Array:
    """Sinusoidal stripes of two colours, 4 to 12 per image, in any direction."""
    direction, colours, cycles, phase = jax.random.split(key, 4)
    first, second = _colours(colours, 2)
    frequency = jax.random.uniform(cycles, minval=_CYCLES[0], maxval=_CYCLES[1])
    along = frequency * _project(direction, size) + jax.random.uniform(phase)
    share = 0.5 + 0.5 * jnp.sin(2 * jnp.pi * along)
    return first + share[..., None] * (second - first)


def noise(key: jax.Array, size: int) -> jax.Array:
    """Noise with the spectrum of photographs: amplitude 1 / frequency in all directions.

    Field, Relations between the statistics of natural images and the response properties
    of cortical cells, 1987. Its channels share most of their structure, as those of
    photographs do. Mean 127.5, standard deviation 51 in each channel, before values are cut.
    """
    shared, own = jax.random.split(key)
    white = jax.random.normal(shared, (size, size, 1))
    white = white + 0.5 * jax.random.normal(own, (size, size, 3))
    y, x = jnp.fft.fftfreq(size)[:, None], jnp.fft.fftfreq(size)[None]
    frequency = jnp.sqrt(x**2 + y**2).at[0, 0].set(jnp.inf)  # No mean.
    spectrum = jnp.fft.fft2(white, axes=(0, 1)) / frequency[..., None]
    pink = jnp.fft.ifft2(spectrum, axes=(0, 1)).real
    return jnp.clip(127.5 + _NOISE_STD * pink / pink.std((0, 1)), 0, 255)


def ramp(key: jax.Array, size: int) -> jax.Array:
    """A plane that rises from 0 to 1 over the image, in any direction: [size, size]."""
    plane = _project(key, size)
    return (plane - plane.min()) / (plane.max() - plane.min())


def _project(key: jax.Array, size: int) -> jax.Array:
    """The position of each pixel along a random direction, in sides of the image."""
    angle = jax.random.uniform(key, maxval=2 * jnp.pi)
    steps = jnp.arange(size) / size
    return steps[None] * jnp.cos(angle) + steps[:, None] * jnp.sin(angle)


def _colours(key: jax.Array, count: int) -> jax.Array:
    return jax.random.uniform(key, (count, 3), maxval=255.0)
