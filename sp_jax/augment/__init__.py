"""Data augmentation on the accelerator: whole batches, one key, inside of `jax.jit`.

Example:
    >>> import jax, jax.numpy as jnp
    >>> from sp_jax.augment import Augment, make_views
    >>> pairs = jnp.zeros((4, 2, 64, 64, 3), jnp.uint8)
    >>> (one, two), source = make_views(jax.random.key(0), pairs, [Augment(size=64)] * 2)
    >>> one.shape
    (4, 64, 64, 3)
"""

from sp_jax.augment.blur import gaussian_blur
from sp_jax.augment.color import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    color_jitter,
    normalize,
    solarize,
    to_grayscale,
)
from sp_jax.augment.config import IMAGENET_MEAN, IMAGENET_STD, Augment, Jigsaw
from sp_jax.augment.geometry import crop_resize, resize
from sp_jax.augment.params import Params, sample_params
from sp_jax.augment.views import apply_params, augment, jigsaw, make_views, preprocess

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Augment",
    "Jigsaw",
    "Params",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "apply_params",
    "augment",
    "color_jitter",
    "crop_resize",
    "gaussian_blur",
    "jigsaw",
    "make_views",
    "normalize",
    "preprocess",
    "resize",
    "sample_params",
    "solarize",
    "to_grayscale",
]
