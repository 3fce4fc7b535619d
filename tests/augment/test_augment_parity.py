"""Each operation, and all of them in a row, against torchvision on real images."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sp_jax import augment as aug
from tests.augment import reference

crop_resize = jax.jit(aug.crop_resize, static_argnames=("size", "interpolation"))
gaussian_blur = jax.jit(aug.gaussian_blur, static_argnames="taps")
color_jitter = jax.jit(aug.color_jitter, static_argnames="operations")

VERSIONS = pytest.mark.parametrize("functional", [reference.v1, reference.v2])


def max_error(ours, theirs):
    ours = np.asarray(ours)
    assert ours.shape == theirs.shape
    return np.abs(ours - theirs).max()


def planar(images):
    return jnp.moveaxis(jnp.asarray(images), -1, 1).astype(jnp.float32) / 255


def boxes(images):
    """Sampled crops, and then the corner cases: all of it, and a single pixel."""
    n, height, width, _ = images.shape
    params = aug.sample_params(jax.random.key(3), n, height, width, aug.Augment())
    box = np.array(params.box)
    box[0] = 0, 0, height, width
    box[1] = height - 1, width - 1, 1, 1
    box[2] = 5, 0, 3, width
    return box, np.array(params.flip)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [24, 64, 112])  # shrinks, both, enlarges
@pytest.mark.parametrize("which", ["emoji_images", "scenes"])
def test_crop_and_flip(which, size, interpolation, request):
    images = request.getfixturevalue(which)[:24]
    box, flip = boxes(images)
    ours = crop_resize(
        images, box, size, flip=jnp.asarray(flip), interpolation=interpolation
    )
    theirs = reference.crop(images, box, size, flip, interpolation)
    assert max_error(ours, theirs) < 1.5e-6
    if size == 64:
        theirs = reference.crop(images, box, size, flip, interpolation, reference.v2)
        assert max_error(ours, theirs) < 1.5e-6


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crop_is_within_a_level_of_pil(scenes, interpolation):
    box, _ = boxes(scenes)
    ours = crop_resize(scenes, box, 64, interpolation=interpolation)
    levels = np.moveaxis(np.asarray(ours), 1, -1) * 255
    errors = []
    for image, (top, left, h, w), level in zip(scenes, box, levels, strict=True):
        pil = Image.fromarray(image).crop((left, top, left + w, top + h))
        pil = pil.resize((64, 64), getattr(Image.Resampling, interpolation.upper()))
        errors.append(np.abs(np.asarray(pil) - level))
    # PIL rounds to whole levels after each of the two directions, and there cuts off
    # what a bicubic kernel overshoots: one value in a thousand differs by more.
    assert np.mean(errors) < 0.3
    assert np.mean(np.array(errors) > 1.01) < (
        2e-3 if interpolation == "bicubic" else 1e-9
    )


@VERSIONS
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_jitter_operation(emoji_images, name, functional):
    low, high = (-0.5, 0.5) if name == "hue" else (0.0, 2.0)
    values = np.linspace(low, high, len(emoji_images), dtype=np.float32)
    ours = jax.jit(getattr(aug, f"adjust_{name}"))(planar(emoji_images), values)
    adjust = getattr(functional, f"adjust_{name}")
    assert max_error(ours, reference.each(adjust, emoji_images, values)) < 2e-6


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_jitter_operation_is_within_a_level_of_pil(emoji_images, name):
    values = np.linspace(0.2, 1.8, len(emoji_images), dtype=np.float32)
    ours = jax.jit(getattr(aug, f"adjust_{name}"))(planar(emoji_images), values)
    levels = np.moveaxis(np.asarray(ours), 1, -1) * 255
    adjust = getattr(reference.v1, f"adjust_{name}")
    for image, value, level in zip(emoji_images, values, levels, strict=True):
        pil = np.asarray(adjust(Image.fromarray(image), float(value)))
        assert np.abs(pil - level).max() < 2.0  # it rounds the luma, then cuts


def test_hue_of_gray_and_of_pure_colours():
    colours = np.array(list(itertools.product([0.0, 0.5, 1.0], repeat=3)), np.float32)
    x = np.tile(colours.T[None, :, :, None], (7, 1, 1, 1))
    shifts = np.linspace(-0.5, 0.5, 7, dtype=np.float32)
    theirs = reference.each(reference.v1.adjust_hue, x, shifts)
    ours = aug.adjust_hue(jnp.asarray(x), jnp.asarray(shifts))
    assert max_error(ours, theirs) < 1e-6


@VERSIONS
def test_jitter_in_all_orders(emoji_images, functional):
    images = emoji_images[:24]
    order = np.array(list(itertools.permutations(range(4))), np.int32)
    factors = np.random.default_rng(0).uniform(0.2, 1.8, (24, 4)).astype(np.float32)
    factors[:, 3] = (factors[:, 3] - 1) / 2
    apply = jnp.ones(24, bool)
    ours = color_jitter(planar(images), order, factors, apply)
    one = functools.partial(reference.jitter, functional=functional)
    theirs = reference.each(one, images, order, factors)
    assert max_error(ours, theirs) < 4e-6
    # The orders differ (where values are cut), so that a wrong one would be seen.
    same = jnp.broadcast_to(planar(images[:1]), (24, 3, 64, 64))
    factor = jnp.broadcast_to(jnp.array([1.7, 1.6, 1.8, 0.3]), (24, 4))
    views = np.asarray(color_jitter(same, order, factor, apply))
    gaps = np.abs(views[:, None] - views[None]).max(axis=(2, 3, 4))
    assert (gaps + np.eye(24)).min() > 1e-3


@pytest.mark.parametrize(
    "operations",
    [
        ("brightness",),
        ("saturation", "contrast"),
        ("hue",),
        ("hue", "contrast"),
        ("brightness", "contrast", "saturation"),
    ],
)
def test_jitter_with_some_operations(emoji_images, operations):
    images = emoji_images[:24]
    order = np.array(list(itertools.permutations(range(4))), np.int32)
    factors = np.tile(np.array([[1.5, 0.6, 1.4, 0.2]], np.float32), (24, 1))
    on = [aug.color.OPERATIONS.index(name) for name in operations]
    neutral = np.array([1, 1, 1, 0], np.float32)
    left = np.where(np.isin(np.arange(4), on), factors, neutral)
    ours = color_jitter(planar(images), order, factors, jnp.ones(24, bool), operations)
    theirs = reference.each(reference.jitter, images, order, left)
    assert max_error(ours, theirs) < 4e-6


@VERSIONS
def test_grayscale_and_solarize(emoji_images, functional):
    x = planar(emoji_images)
    apply = np.arange(len(x)) % 3 > 0

    def gray(image, on):
        return functional.rgb_to_grayscale(image, 3) if on else image

    def solarize(image, on):
        return functional.solarize(image, 0.5) if on else image

    ours = aug.to_grayscale(x, jnp.asarray(apply))
    assert max_error(ours, reference.each(gray, emoji_images, apply)) < 5e-7
    ours = aug.solarize(x, jnp.asarray(apply))
    assert max_error(ours, reference.each(solarize, emoji_images, apply)) < 2e-7


@VERSIONS
@pytest.mark.parametrize("taps", [3, 7, 23])
def test_blur(emoji_images, taps, functional):
    x = planar(emoji_images)
    apply = np.arange(len(x)) % 4 > 0
    sigma = np.linspace(0.1, 4.0, len(x), dtype=np.float32)

    def blur(image, sigma, on):
        return (
            functional.gaussian_blur(image, [taps, taps], [sigma] * 2) if on else image
        )

    ours = np.asarray(gaussian_blur(x, sigma, jnp.asarray(apply), taps))
    assert max_error(ours, reference.each(blur, emoji_images, sigma, apply)) < 2e-6
    np.testing.assert_array_equal(ours[~apply], x[~apply])


def test_blur_is_not_symmetric_by_accident(scenes):
    """A blur that mirrored the image would pass on a symmetric image only."""
    x = planar(scenes[:, :, :96])
    ours = gaussian_blur(x, jnp.full(12, 1.5), jnp.ones(12, bool), 9)

    def blur(image):
        return reference.v1.gaussian_blur(image, [9, 9], [1.5, 1.5])

    assert max_error(ours, reference.each(blur, np.asarray(x))) < 2e-6


def test_preprocess(emoji_images, scenes):
    for images in (emoji_images, scenes):
        whole_image = np.tile([0, 0, *images.shape[1:3]], (len(images), 1))
        flip = np.zeros(len(images), bool)
        theirs = reference.crop(images, whole_image, 64, flip, "bilinear")
        theirs = reference.v1.normalize(
            reference.to_torch(theirs), aug.IMAGENET_MEAN, aug.IMAGENET_STD
        )
        ours = aug.preprocess(images, 64)
        assert max_error(ours, theirs.permute(0, 2, 3, 1).numpy()) < 1e-5


@pytest.mark.parametrize(
    "config",
    [
        aug.Augment(size=64),
        aug.Augment(
            size=48,
            interpolation="bicubic",
            brightness=0.4,
            contrast=0.4,
            saturation=0.2,
            hue=0.1,
            blur=1.0,
            solarize=0.5,
        ),
    ],
    ids=["simclr", "byol"],
)
def test_everything_in_a_row(emoji_images, config):
    params = aug.sample_params(jax.random.key(5), 48, 64, 64, config)
    ours = jax.jit(aug.apply_params, static_argnums=2)(emoji_images, params, config)
    theirs = reference.whole(emoji_images, params, config)
    error = np.abs(np.asarray(ours) - theirs)
    if config.solarize > 0:
        # Solarisation is a jump: a value within rounding of it may land on either side.
        assert (error > 2e-5).mean() < 1e-5
    else:
        assert error.max() < 2e-5  # 4 to 5 times the error in [0, 1], by std
