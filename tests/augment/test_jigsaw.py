"""PIRL's view: where the patches come from, their order, and their colours."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sp_jax.augment import Augment, Jigsaw, augment, jigsaw, make_views

PLAIN = {"jitter": 0, "grayscale": 0, "blur": 0, "flip": 0}
WHOLE = {**PLAIN, "crop_scale": (1, 1), "crop_ratio": (1, 1)}


def cut(key, images, config):
    return jax.jit(jigsaw, static_argnums=2)(jax.random.key(key), images, config)


def coordinates(size):
    """Images whose red and green are the row and the column."""
    row, column = np.mgrid[:size, :size]
    image = np.stack([row, column, 0 * row], axis=-1).astype(np.uint8)
    return jnp.asarray(np.stack([image] * 64))


def places(patches, view):
    """Top left corner of each patch [N, 9, 2], and the patches in stored values."""
    values = np.asarray(patches) * np.array(view.std) + np.array(view.mean)
    values = np.round(values * 255).astype(int)
    return values[:, :, 0, 0, :2], values


def test_patches_are_cut_from_all_cells_in_every_order():
    config = Jigsaw(Augment(size=72, **WHOLE), grid=3, patch=18)
    corner, values = places(cut(0, coordinates(72), config), config.view)
    assert values.shape == (64, 9, 18, 18, 3)
    # Each patch is 18 neighbouring rows and columns.
    span = np.arange(18)
    assert (values[..., 0] == corner[:, :, :1, None] + span[:, None]).all()
    assert (values[..., 1] == corner[:, :, 1:, None] + span).all()
    cell = corner // 24 @ np.array([3, 1])
    assert (np.sort(cell, axis=1) == np.arange(9)).all()  # a permutation
    assert len({tuple(row) for row in cell}) > 60
    inside = corner % 24
    assert inside.max() <= 6 and set(inside.ravel()) == set(range(7))
    # Every cell comes first about as often.
    assert np.bincount(cell[:, 0], minlength=9).max() < 20


def test_one_patch_is_the_crop():
    view = Augment(size=40, **PLAIN)
    config = Jigsaw(view, grid=1, patch=40)
    images = coordinates(64)[:4]
    patch = cut(3, images, config)[:, 0]
    crop_key = jax.random.split(jax.random.key(3), 4)[0]
    np.testing.assert_allclose(patch, augment(crop_key, images, view), atol=1e-6)


def test_each_patch_has_its_own_colours():
    view = Augment(size=72, **{**WHOLE, "jitter": 1.0})
    images = jnp.full((2, 72, 72, 3), 128, jnp.uint8)
    mean = np.asarray(cut(0, images, Jigsaw(view))).mean(axis=(2, 3, 4))
    assert len(np.unique(mean.round(4))) == 18


def test_the_coin_decides_which_image_is_cut():
    config = Jigsaw(Augment(size=72, **WHOLE))
    view = Augment(size=64, **WHOLE)
    pair = jnp.stack([jnp.zeros((72, 72, 3)), jnp.full((72, 72, 3), 255)])
    pairs = jnp.broadcast_to(pair, (32, *pair.shape)).astype(jnp.uint8)
    (image, puzzle), source = jax.jit(
        lambda key, x: make_views(key, x, [view, config])
    )(jax.random.key(0), pairs)
    white = np.asarray(image).mean(axis=(1, 2, 3)) > 0
    assert (white == (source[:, 0] == 1)).all() and 0 < white.sum() < 32
    assert (source[:, 0] + source[:, 1] == 1).all()
    cut_white = np.asarray(puzzle).mean(axis=(1, 2, 3, 4)) > 0
    assert (cut_white == ~white).all()


def test_errors():
    with pytest.raises(ValueError, match="30 px do not fit 3 times into 72 px"):
        Jigsaw(Augment(size=72), grid=3, patch=30)
    with pytest.raises(ValueError, match="give uint8"):
        images = jnp.zeros((2, 72, 72, 3))
        inspect.unwrap(jigsaw)(jax.random.key(0), images, Jigsaw(Augment(size=72)))
