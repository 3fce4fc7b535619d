"""Draws the random numbers of the augmentation; other files apply them."""

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32, PRNGKeyArray

from sp_jax import crops
from sp_jax.augment.config import Augment


class Params(NamedTuple):
    """What was drawn for each of n images. Fields of absent operations stay unused.

    Attributes:
        box: top, left, height, width of the crop, in input pixels.
        flip: whether left and right change places.
        jitter: whether colours are jittered.
        order: of 0 brightness, 1 contrast, 2 saturation, 3 hue; the first is done first.
        factors: of brightness, contrast and saturation, and the hue's shift in turns.
        grayscale: whether the colour is lost.
        blur: whether the image is blurred.
        sigma: standard deviation of the blur, in output pixels.
        solarize: whether bright values are inverted.
    """

    box: Int32[Array, "n 4"]
    flip: Bool[Array, " n"]
    jitter: Bool[Array, " n"]
    order: Int32[Array, "n 4"]
    factors: Float32[Array, "n 4"]
    grayscale: Bool[Array, " n"]
    blur: Bool[Array, " n"]
    sigma: Float32[Array, " n"]
    solarize: Bool[Array, " n"]


def sample_params(
    key: PRNGKeyArray, n: int, height: int, width: int, config: Augment
) -> Params:
    """Draws the augmentation of n images of height x width pixels.

    Every operation has a key of its own, so that switching one off leaves the others'
    draws as they were. All draws are over the whole batch: they do not depend on the
    number of devices.
    """
    keys = iter(jax.random.split(key, 9))

    def happens(probability: float) -> Bool[Array, " n"]:
        return jax.random.bernoulli(next(keys), float(probability), (n,))

    box = sample_boxes(
        next(keys), n, height, width, config.crop_scale, config.crop_ratio
    )
    strengths = (config.brightness, config.contrast, config.saturation)
    low = jnp.array([*(max(0.0, 1 - s) for s in strengths), -config.hue])
    high = jnp.array([*(1 + s for s in strengths), config.hue])
    return Params(
        box=box,
        flip=happens(config.flip),
        jitter=happens(config.jitter),
        order=sample_orders(next(keys), n),
        factors=jax.random.uniform(next(keys), (n, 4), minval=low, maxval=high),
        grayscale=happens(config.grayscale),
        blur=happens(config.blur),
        sigma=jax.random.uniform(
            next(keys), (n,), minval=config.blur_sigma[0], maxval=config.blur_sigma[1]
        ),
        solarize=happens(config.solarize),
    )


def sample_orders(key: PRNGKeyArray, n: int) -> Int32[Array, "{n} 4"]:
    """Draws n permutations of 0, 1, 2, 3; all 24 are equally likely."""
    orders = np.array(list(itertools.permutations(range(4))), np.int32)
    return jnp.asarray(orders)[jax.random.randint(key, (n,), 0, len(orders))]


def sample_boxes(
    key: PRNGKeyArray,
    n: int,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Int32[Array, "{n} 4"]:
    """Draws n crops as torchvision's `RandomResizedCrop.get_params` does.

    The area is uniform, the logarithm of width / height is uniform; the first of ten
    draws that fits into the image is taken, and its place is uniform. When none fits:
    the largest centre crop whose ratio lies in the range.

    Returns:
        Top, left, height, width of each, in pixels.
    """
    area_key, ratio_key, top_key, left_key = jax.random.split(key, 4)
    shape = (n, crops.TRIES)
    area = jax.random.uniform(area_key, shape, minval=scale[0], maxval=scale[1])
    area = area * (height * width)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = jnp.exp(jax.random.uniform(ratio_key, shape, minval=low, maxval=high))
    h, w, found = crops.fit_crops(area, aspect, height, width, ratio, jnp)
    top = jax.random.randint(top_key, (n,), 0, height - h + 1)
    left = jax.random.randint(left_key, (n,), 0, width - w + 1)
    top = jnp.where(found, top, (height - h) // 2)
    left = jnp.where(found, left, (width - w) // 2)
    return jnp.stack([top, left, h, w], axis=1)
