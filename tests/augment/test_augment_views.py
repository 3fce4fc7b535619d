"""Whole views: switches, determinism, and which image of a pair gets which pipeline."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from sp_jax.augment import (
    Augment,
    apply_params,
    augment,
    crop_resize,
    make_views,
    normalize,
    preprocess,
    sample_params,
    views,
)

OFF = {"jitter": 0, "grayscale": 0, "blur": 0}
SAME = {**OFF, "flip": 0, "crop_scale": (1, 1), "crop_ratio": (1, 1)}  # changes nothing


def run(key, images, config):
    return jax.jit(augment, static_argnums=2)(jax.random.key(key), images, config)


def views_of(pairs, configs, key=0):
    make = jax.jit(lambda key, pairs: make_views(key, pairs, configs)[0])
    return make(jax.random.key(key), pairs)


def test_crop_only_is_exactly_the_crop(emoji_images):
    config = Augment(size=48, **OFF)
    key = jax.random.key(7)
    p = sample_params(key, 48, 64, 64, config)
    crop = crop_resize(emoji_images, p.box, 48, flip=p.flip)
    plain = jnp.moveaxis(normalize(crop, config.mean, config.std), 1, -1)
    np.testing.assert_array_equal(augment(key, emoji_images, config), plain)


def test_config_that_changes_nothing(emoji_images):
    ours = run(0, emoji_images, Augment(size=64, **SAME))
    np.testing.assert_allclose(ours, preprocess(emoji_images, 64), atol=2e-6)


def test_probability_1_and_0_for_single_images(emoji_images):
    """An image to which no random operation is applied keeps the values of its plain crop."""
    config = Augment(size=64, solarize=0.3)
    p = sample_params(jax.random.key(2), 48, 64, 64, config)
    none = ~(p.jitter | p.grayscale | p.blur | p.solarize)
    assert 0 < none.sum() < 48
    full = apply_params(emoji_images, p, config)
    plain = apply_params(emoji_images, p, Augment(size=64, **OFF))
    np.testing.assert_allclose(full[none], plain[none], atol=1e-6)
    changed = np.abs(full - plain).max(axis=(1, 2, 3)) > 1e-2
    assert changed[~none].mean() > 0.9


@pytest.mark.parametrize(
    "change, gone",
    [
        ({"jitter": 0}, {"floor", "sort", "reduce_sum", "div"}),
        ({"hue": 0}, {"floor"}),
        ({"contrast": 0}, {"reduce_sum"}),
        ({"blur": 0}, {"exp"}),
        ({"size": 16}, {"exp"}),  # a tenth of 16 px is no blur
        ({"solarize": 0}, {"ge"}),
        ({"flip": 0}, {"rev"}),
    ],
)
def test_what_is_switched_off_is_not_compiled(change, gone):
    def operations(config):
        images = jnp.zeros((2, 64, 64, 3), jnp.uint8)
        p = sample_params(jax.random.key(0), 2, 64, 64, config)
        text = str(jax.make_jaxpr(lambda i, p: apply_params(i, p, config))(images, p))
        counts = {
            name: text.count(f" {name}[") + text.count(f" {name} ") for name in gone
        }
        return counts

    base = {"size": 64, "solarize": 0.2}
    before, after = (
        operations(Augment(**base)),
        operations(Augment(**{**base, **change})),
    )
    for name in gone:
        assert after[name] < before[name]
        # Crop and hue use sums, divisions and comparisons of their own.
        assert after[name] == 0 or name in ("reduce_sum", "div", "ge")


def test_same_key_same_views_and_other_key_others(emoji_images):
    config = Augment(size=64, solarize=0.2)
    one, same, other = (np.asarray(run(k, emoji_images, config)) for k in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (np.abs(one - other).max(axis=(1, 2, 3)) > 1e-2).all()


def test_images_do_not_mix(emoji_images):
    config = Augment(size=64, solarize=0.2)
    changed = emoji_images.copy()
    changed[5] = emoji_images[9]
    one, two = (
        np.asarray(run(0, images, config)) for images in (emoji_images, changed)
    )
    rest = np.arange(48) != 5
    np.testing.assert_array_equal(one[rest], two[rest])
    assert np.abs(one[5] - two[5]).max() > 1e-2


def test_output_of_any_input_size(scenes):
    out = run(0, scenes, Augment(size=40))
    assert out.shape == (12, 40, 40, 3) and out.dtype == jnp.float32
    assert np.isfinite(out).all()


def test_equal_views_are_made_together(emoji_images, monkeypatch):
    calls = []

    def counting(key, images, config):
        calls.append(images.shape)
        return augment(key, images, config)

    monkeypatch.setattr(views, "augment", counting)
    pairs = emoji_images.reshape(24, 2, 64, 64, 3)
    views_of(pairs, [Augment(size=64, **SAME)] * 4)
    assert calls == [(96, 64, 64, 3)]


def test_augmentation_pair_is_two_views_of_one_image(emoji_images):
    pairs = emoji_images[:, None]
    for configs in ([Augment(**SAME)] * 2, [Augment(**SAME), Augment(size=32, **SAME)]):
        for view, config in zip(views_of(pairs, configs), configs, strict=True):
            plain = preprocess(emoji_images, config.size)
            np.testing.assert_allclose(view, plain, atol=2e-6)
    one, two = views_of(pairs, [Augment(size=64)] * 2)
    assert (np.abs(one - two).max(axis=(1, 2, 3)) > 1e-2).all()


def test_a_coin_decides_which_image_comes_first(emoji_images):
    pairs = np.tile(emoji_images.reshape(24, 2, 64, 64, 3), (4, 1, 1, 1, 1))
    configs = [Augment(size=24, **SAME), Augment(size=32, **SAME)]
    # As in SwAV: small views of both images in turn; here the first gets one more.
    multi = [configs[0]] * 2 + [configs[1]] * 3
    heads = 0
    for case in (configs, multi, [configs[0]] * 2):
        out = views_of(pairs, case, key=3)
        plain = {
            (size, image): preprocess(pairs[:, image], size)
            for size in (24, 32)
            for image in (0, 1)
        }
        match = np.array([
            [
                np.abs(view - plain[view.shape[1], image]).max(axis=(1, 2, 3)) < 1e-5
                for image in (0, 1)
            ]
            for view in out
        ])  # fmt: skip
        first = match[0, 0]
        for i in range(len(case)):  # each pair: alternating, from one image on
            np.testing.assert_array_equal(match[i, i % 2], first)
            np.testing.assert_array_equal(match[i, 1 - i % 2], ~first)
        heads = int(first.sum())
        assert stats.binomtest(heads, len(pairs), 0.5).pvalue > 1e-3


def test_batch_over_eight_devices_is_the_same(emoji_images):
    devices = jax.devices()
    if len(devices) < 8:
        pytest.skip("needs 8 devices")
    mesh = jax.sharding.Mesh(np.array(devices[:8]), ("data",))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    pairs = emoji_images.reshape(24, 2, 64, 64, 3)
    configs = [Augment(size=32), Augment(size=32, solarize=0.2)]
    alone = views_of(pairs, configs)
    shared = views_of(jax.device_put(pairs, spread), configs)
    for one, eight in zip(alone, shared, strict=True):
        assert eight.sharding.is_equivalent_to(spread, 4)
        np.testing.assert_allclose(one, eight, atol=1e-5)


@pytest.mark.parametrize(
    "values, word",
    [
        ({"size": 0}, "size"),
        ({"crop_scale": (0.5, 0.2)}, "crop_scale"),
        ({"crop_scale": (0.5, 1.2)}, "crop_scale"),
        ({"interpolation": "nearest"}, "interpolation"),
        ({"flip": 1.5}, "flip"),
        ({"contrast": -1}, "contrast"),
        ({"hue": 0.6}, "hue"),
        ({"blur_kernel": 6}, "blur_kernel"),
        ({"blur_sigma": (0, 2)}, "blur_sigma"),
        ({"std": (0.2, 0.2)}, "std"),
    ],
)
def test_bad_values_are_named(values, word):
    with pytest.raises(ValueError, match=f"^{word}|and std"):
        Augment(**values)


def test_config_from_lists_is_a_static_argument():
    config = Augment(crop_scale=[0.2, 1.0], mean=[0.5, 0.5, 0.5])
    assert hash(config) == hash(Augment(crop_scale=(0.2, 1.0), mean=(0.5, 0.5, 0.5)))
    assert [Augment(size=s).kernel_size for s in (224, 64, 32, 16)] == [23, 7, 3, 0]


def test_other_images_are_refused(emoji_images):
    """Also where annotations are not checked, unlike in tests, the error is one sentence."""
    with pytest.raises(ValueError, match=r"float32 .* give uint8 \[N, H, W, 3\]"):
        inspect.unwrap(augment)(
            jax.random.key(0), emoji_images / np.float32(255), Augment()
        )
    with pytest.raises(ValueError, match=r"give uint8 \[B, V, H, W, 3\]"):
        inspect.unwrap(make_views)(jax.random.key(0), emoji_images, [Augment()] * 2)
    with pytest.raises(ValueError, match="give uint8"):
        inspect.unwrap(preprocess)(emoji_images[..., :1], 64)
