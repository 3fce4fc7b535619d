"""Illumination: another light on the same scene.

Light adds and scales in linear units, so brightness, temperature and shading decode the
pixels (IEC 61966-2-1, "sRGB"), scale the light and encode it again. What becomes brighter
than white is cut, as a camera does. Each image takes one of the two directions, such as
brighter or darker, at random.
"""

import jax
import jax.numpy as jnp

from eval.corruptions import patterns
from eval.corruptions.scene import Scene

_DAYLIGHT = 1e6 / 6504  # mired


def gamma(key: jax.Array, scene: Scene, level: jax.Array) -> jax.Array:
    """Pixels in [0, 1] to the power of 2**level or of 2**-level."""
    exponent = 2.0 ** (level * _direction(key))
    return 255 * (scene.images / 255) ** exponent


def brightness(key: jax.Array, scene: Scene, level: jax.Array) -> jax.Array:
    """2**level times as much light, or that much less: `level` stops of exposure."""
    return _light(scene.images, 2.0 ** (level * _direction(key)))


def temperature(key: jax.Array, scene: Scene, level: jax.Array) -> jax.Array:
    """Light of a black body, `level` mired warmer or colder than daylight (6504 K).

    A mired is 1e6 / temperature; equal steps of it look about equal. 96 mired are 4004 K
    or 17,300 K. The luminance of white stays.
    """
    mired = _DAYLIGHT + level * _direction(key)
    return _light(scene.images, black_body(mired) / black_body(_DAYLIGHT))


def shading(key: jax.Array, scene: Scene, level: jax.Array) -> jax.Array:
    """Light falls off linearly over the image, in any direction, from 1 to 1 - level."""
    light = 1 - level * patterns.ramp(key, scene.images.shape[0])
    return _light(scene.images, light[..., None])


def black_body(mired: jax.Array | float) -> jax.Array:
    """The colour of a black body's light at luminance 1: linear sRGB, float [3].

    Chromaticity by the cubics of Kim et al. (US patent 7,024,034), 4000 K to 25,000 K.
    """
    t = 1e-3 * mired  # 1000 / temperature
    x = -3.0258469 * t**3 + 2.1070379 * t**2 + 0.2226347 * t + 0.240390
    y = 3.0817580 * x**3 - 5.87338670 * x**2 + 3.75112997 * x - 0.37001483
    xyz = jnp.stack([x / y, jnp.ones_like(x), (1 - x - y) / y])
    to_rgb = [
        [3.2404542, -1.5371385, -0.4985314],
        [-0.9692660, 1.8760108, 0.0415560],
        [0.0556434, -0.2040259, 1.0572252],
    ]
    return jnp.dot(jnp.array(to_rgb), xyz, precision=jax.lax.Precision.HIGHEST)


def _direction(key: jax.Array) -> jax.Array:
    """1 or -1."""
    return 2.0 * jax.random.bernoulli(key) - 1


def _light(images: jax.Array, gain: jax.Array) -> jax.Array:
    """Pixels in [0, 255] under `gain` times the light."""
    v = images / 255
    linear = jnp.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    linear = jnp.clip(linear * gain, 0, 1)
    # The power of a positive number only: it is computed for dark pixels, too.
    bright = 1.055 * jnp.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return 255 * jnp.where(linear <= 0.0031308, 12.92 * linear, bright)
