"""The corruptions change nothing at level 0, and as defined at the other levels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import color

from eval import corruptions
from eval.corruptions import illumination, occlusion, patterns, texture
from eval.corruptions.scene import Scene
from input_pipeline.stores import emoji
from sp_jax.errors import UserError

KINDS = [(f, k) for f, kinds in corruptions.FAMILIES.items() for k in kinds]
every_kind = pytest.mark.parametrize("family, kind", KINDS)


@pytest.fixture(scope="module")
def scene():
    """24 drawings at 32 pixels, as the store has them."""
    tiles = emoji.read_tiles(emoji.ARCHIVE.read_bytes())[::300]
    tiles = tiles[:24, ::2, ::2]
    behind = np.stack([emoji.background(row) for row in range(24)])
    images = emoji.composite(tiles, behind[:, None, None])
    alpha = tiles[..., 3]
    return Scene(images, np.arange(24), np.roll(images, 1, axis=0), alpha, behind)


def part(scene, rows):
    return Scene(*(x[rows] for x in scene))


def one(scene, row=0):
    """One image in float32, as a change gets it."""
    return Scene(*(jnp.asarray(x[row], jnp.float32) for x in scene))


@every_kind
def test_level_0_is_the_image_and_levels_grow_from_there(scene, family, kind):
    levels = corruptions.FAMILIES[family][kind].levels
    assert len(levels) == 5 and levels[0] == 0
    none = corruptions.apply(family, kind, scene, 0, seed=3)
    assert none.tobytes() == scene.images.tobytes()
    # No jump beside it, either: the formula itself begins with the image.
    least = 1 if kind == "shuffle" else 1e-6
    assert np.array_equal(
        corruptions.apply(family, kind, scene, least, 3), scene.images
    )
    change = [
        np.abs(
            corruptions.apply(family, kind, scene, x, 3).astype(int) - scene.images
        ).mean()
        for x in levels
    ]
    # From 8 x 8 to 16 x 16 squares the pixels hardly move farther, up to chance.
    assert np.all(np.diff(change) > (-1 if kind == "shuffle" else 0)), change
    assert change[1] > 1 and change[-1] > 10


@every_kind
def test_only_seed_and_number_decide(scene, family, kind):
    level = corruptions.FAMILIES[family][kind].levels[2]
    before = [np.copy(x) for x in scene]
    with jax.transfer_guard("disallow"):  # As a training loop may have it.
        changed = corruptions.apply(family, kind, scene, level, seed=0)
    assert changed.dtype == np.uint8 and changed.shape == scene.images.shape
    assert all(np.array_equal(a, b) for a, b in zip(scene, before, strict=True))
    assert np.array_equal(
        changed, corruptions.apply(family, kind, scene, level, seed=0)
    )
    # Other company, another order.
    rows = np.tile([17, 4, 9], 8)  # As many: compiled once.
    alone = corruptions.apply(family, kind, part(scene, rows), level, seed=0)
    assert np.array_equal(alone, changed[rows])
    # Two images with the same pixels and other numbers.
    if kind != "amplitude":  # It draws nothing.
        twins = part(scene, np.zeros(24, int))._replace(numbers=np.arange(24))
        assert (
            len(np.unique(corruptions.apply(family, kind, twins, level, 0), axis=0)) > 1
        )
        other = corruptions.apply(family, kind, scene, level, seed=1)
        assert not np.array_equal(changed, other)


@pytest.mark.parametrize("kind", corruptions.FAMILIES["background"])
@pytest.mark.parametrize("level", [0.5, 1.0])
def test_the_background_changes_and_the_object_does_not(scene, kind, level):
    changed = corruptions.apply("background", kind, scene, level, seed=0)
    inside, outside = scene.alpha == 255, scene.alpha == 0
    assert inside.sum() > 1000 and np.array_equal(changed[inside], scene.images[inside])
    assert np.mean(changed[outside] != scene.images[outside]) > 0.9


def test_an_exchanged_background_is_what_a_compositor_makes():
    tiles = emoji.read_tiles(emoji.ARCHIVE.read_bytes())[[0, 3000, 7227]]
    behind = np.stack([emoji.background(row) for row in (0, 3000, 7227)])
    images = emoji.composite(tiles, behind[:, None, None])
    alpha = tiles[..., 3]
    scene = Scene(images, np.arange(3), images, alpha, behind)
    changed = corruptions.apply("background", "colour", scene, 1.0, seed=0)
    for row, tile in enumerate(tiles):
        (new,) = np.unique(changed[row][alpha[row] == 0], axis=0)
        under = Image.new("RGBA", (64, 64), (*new.tolist(), 255))
        expected = Image.alpha_composite(under, Image.fromarray(tile)).convert("RGB")
        assert np.abs(changed[row].astype(int) - np.asarray(expected)).max() <= 2


def test_a_surface_keeps_the_silhouette_only(scene):
    changed = corruptions.apply("texture", "surface", scene, 1.0, seed=0)
    outside, inside = scene.alpha == 0, scene.alpha == 255
    assert np.array_equal(changed[outside], scene.images[outside])
    negative = scene._replace(images=255 - scene.images)
    other = corruptions.apply("texture", "surface", negative, 1.0, seed=0)
    assert np.array_equal(changed[inside], other[inside])


@given(
    share=st.floats(0, 1), size=st.sampled_from([16, 20, 33]), seed=st.integers(0, 99)
)
@settings(max_examples=20, deadline=None)
def test_the_share_of_the_squares_is_hidden(share, size, seed):
    image = Scene(jnp.full((size, size, 3), 7.0), 0, None)
    key = jax.random.key(seed)
    hidden = np.asarray(occlusion.patches(key, image, share)) == 128
    cell = np.arange(size) * 8 // size
    first = np.flatnonzero(np.diff(cell, prepend=-1))
    squares = hidden[np.ix_(first, first)]
    assert squares[..., 0].sum() == np.round(np.float32(share) * 64)
    assert np.array_equal(hidden, squares[np.ix_(cell, cell)])
    # What is hidden stays hidden at higher levels.
    more = np.asarray(occlusion.patches(key, image, min(1.0, share + 0.1))) == 128
    assert np.all(more >= hidden)


@given(
    grid=st.integers(1, 16), size=st.sampled_from([16, 20, 33]), seed=st.integers(0, 99)
)
@settings(max_examples=20, deadline=None)
def test_squares_change_places_as_wholes(grid, size, seed):
    image = np.arange(size * size * 3).reshape(size, size, 3)
    scene = Scene(jnp.asarray(image, jnp.float32), 0, None)
    level = jnp.float32(grid)
    changed = np.asarray(texture.shuffle(jax.random.key(seed), scene, level)).astype(
        int
    )
    side = size // grid
    end = side * grid

    def squares(x):
        cut = x[:end, :end].reshape(grid, side, grid, side, 3).swapaxes(1, 2)
        return {square.tobytes() for square in cut.reshape(grid**2, side, side, 3)}

    assert squares(changed) == squares(image)
    margin = np.ones((size, size), bool)
    margin[:end, :end] = False
    assert np.array_equal(changed[margin], image[margin])


def test_amplitudes_are_mixed_and_phases_stay(scene):
    image = one(scene)
    got = np.asarray(texture.amplitude(None, image, 0.75), np.float64)
    own, other = (
        np.fft.fft2(np.asarray(x, np.float64), axes=(0, 1))
        for x in (image.images, image.others)
    )
    mixed = (0.25 * np.abs(own) + 0.75 * np.abs(other)) * np.exp(1j * np.angle(own))
    expected = np.fft.ifft2(mixed, axes=(0, 1)).real
    np.testing.assert_allclose(got, expected, atol=1e-2)


def test_light_scales_luminance(scene):
    """By scikit-image's sRGB, where nothing is cut."""
    image = one(scene)
    xyz = color.rgb2xyz(np.asarray(image.images, np.float64) / 255)
    key = next(
        k for k in map(jax.random.key, range(9)) if illumination._direction(k) < 0
    )

    def ratio(changed):
        return (
            color.rgb2xyz(np.asarray(changed, np.float64) / 255)[..., 1] / xyz[..., 1]
        )

    lit = xyz[..., 1] > 0.05
    darker = ratio(illumination.brightness(key, image, 1.5))
    np.testing.assert_allclose(darker[lit], 2**-1.5, rtol=1e-3)
    shaded = ratio(illumination.shading(key, image, 0.9))
    expected = 1 - 0.9 * np.asarray(patterns.ramp(key, 32))
    np.testing.assert_allclose(shaded[lit], expected[lit], rtol=1e-3)
    assert expected.min() == pytest.approx(0.1, abs=1e-5) and expected.max() == 1
    # A plane: no second differences.
    assert max(np.abs(np.diff(expected, 2, axis)).max() for axis in (0, 1)) < 1e-5
    # White keeps its luminance under colder light, as far as it is not cut.
    grey = image._replace(images=jnp.full((32, 32, 3), 128.0))
    colder = color.rgb2xyz(np.asarray(illumination.temperature(key, grey, 96.0)) / 255)
    assert colder[0, 0, 1] == pytest.approx(color.rgb2xyz([128 / 255] * 3)[1], rel=0.01)
    assert colder[0, 0, 2] > 1.3 * colder[0, 0, 1]


def test_gamma_is_a_power_up_or_down(scene):
    image = one(scene)
    directions = set()
    for seed in range(8):
        got = illumination.gamma(jax.random.key(seed), image, 1.0)
        v = np.asarray(image.images, np.float64) / 255
        close = [np.allclose(got, 255 * v**power, atol=0.01) for power in (2, 0.5)]
        assert sum(close) == 1
        directions.add(close[0])
    assert directions == {True, False}


@pytest.mark.parametrize("kelvin", [4004, 5000, 6504, 9000, 17_300])
def test_black_bodies_have_the_colours_of_plancks_law(kelvin):
    # Colour matching by the fits of Wyman et al., JCGT 2(2), 2013.
    nm = np.arange(360, 831.0)

    def lobe(height, centre, left, right):
        width = np.where(nm < centre, left, right)
        return height * np.exp(-(((nm - centre) / width) ** 2) / 2)

    sensitivity = np.stack(
        [
            lobe(1.056, 599.8, 37.9, 31.0)
            + lobe(0.362, 442.0, 16.0, 26.7)
            + lobe(-0.065, 501.1, 20.4, 26.2),
            lobe(0.821, 568.8, 46.9, 40.5) + lobe(0.286, 530.9, 16.3, 31.1),
            lobe(1.217, 437.0, 11.8, 36.0) + lobe(0.681, 459.0, 26.0, 13.8),
        ]
    )
    power = nm**-5 / np.expm1(1.4388e7 / (nm * kelvin))
    xyz = sensitivity @ power
    to_xyz = np.asarray(color.colorconv.xyz_from_rgb)
    got = to_xyz @ np.asarray(illumination.black_body(1e6 / kelvin), np.float64)
    assert got[1] == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(got / got.sum(), xyz / xyz.sum(), atol=0.004)


def test_noise_has_the_spectrum_of_photographs():
    keys = jax.random.split(jax.random.key(0), 32)
    noise = np.asarray(jax.vmap(lambda key: patterns.noise(key, 64))(keys))
    amplitude = np.abs(np.fft.fft2(noise - 127.5, axes=(1, 2))).mean((0, 3))
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64))
    middle = (frequency > 0.03) & (frequency < 0.4)
    slope, _ = np.polyfit(np.log(frequency[middle]), np.log(amplitude[middle]), 1)
    assert slope == pytest.approx(-1, abs=0.1)
    assert noise.mean() == pytest.approx(127.5, abs=3)
    assert noise.std() == pytest.approx(51, abs=3)


def test_a_scene_of_a_store(make_store):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (9, 16, 16, 3), np.uint8)
    store = make_store(images, [0] * 9)
    rows = np.array([7, 0, 3])
    scene = corruptions.make_scene(store, rows, seed=0)
    assert np.array_equal(scene.images, images[rows]) and scene.alpha is None
    # Everybody has another image beside it, and the same one in any company.
    whole = corruptions.make_scene(store, np.arange(9), seed=0)
    assert np.array_equal(whole.others[rows], scene.others)
    beside = [
        int(np.flatnonzero((images == x).all((1, 2, 3)))[0]) for x in whole.others
    ]
    assert sorted(beside) == list(range(9)) and not np.any(beside == np.arange(9))
    assert "background" not in corruptions.families_of(corruptions.has_alpha(store))
    with pytest.raises(ValueError, match="background/noise needs images with alpha"):
        corruptions.apply("background", "noise", scene, 1.0, seed=0)
    with pytest.raises(UserError, match="16 pixels or more; tiny train has 9 of 2"):
        corruptions.make_scene(make_store(np.ones((9, 12)), [0] * 9), rows, seed=0)

    drawn = dataclasses.replace(
        store,
        read_alpha=emoji.read_alpha,
        ids=tuple(["twemoji/1f535"] * 8 + ["noto/1f534"]),
    )
    scene = corruptions.make_scene(drawn, np.array([8]), seed=0)
    assert scene.alpha.shape == (1, 16, 16) and scene.behind.shape == (1, 3)
    assert scene.alpha[0, 8, 8] == 255 and scene.alpha[0, 0, 0] == 0  # A circle.
