"""Crops by the host: the device's boxes and pixels, of the right images, in any process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from input_pipeline.pairs import resident
from input_pipeline.pairs.host_crops import cut, draw_boxes
from input_pipeline.pairs.pairing import semantic_pairs
from input_pipeline.pairs.sampling import Sampler, random_bits
from input_pipeline.pairs.stream import iterate, make_dataset
from input_pipeline.stores import open_source, open_store, records
from sp_jax.augment import Augment, Jigsaw, crop_resize, finish_views, make_views
from sp_jax.augment.params import sample_boxes
from sp_jax.config import PAIRINGS
from sp_jax.crops import Crop
from sp_jax.errors import UserError

LEVEL = 1e-4
VIEWS = [Augment(size=16), Augment(size=16, blur=0), Augment(size=8)]
VIEWS += [Jigsaw(Augment(size=24), patch=6)]
CROPS = [view.crop for view in VIEWS]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Twelve images of two classes, wide and tall, each of one gray that tells its row."""
    folder = tmp_path_factory.mktemp("coded")
    for row in range(12):
        path = folder / "pictures" / "ab"[row // 6] / f"{row:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (60, 40 + row) if row % 2 else (30, 44)
        Image.new("RGB", size, (20 * row,) * 3).save(path)
    source, coding = open_source(f"folder:{folder}/pictures"), records.Coding(40, 95)
    records.write(source, folder / "out", 64, "crop", 0, 5, coding)
    return open_store(f"array_record:{folder}/out", image_size=20)


def dataset(store, pairing="semantic", crops=CROPS, share=(0, 1)):
    sampler = Sampler(semantic_pairs(store, seed=0), 8, seed=3, pairing=pairing)
    return make_dataset(store, sampler, *share, crops)


def assert_same(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.parametrize("height, width", [(64, 64), (64, 150), (10, 100)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.05, 0.14)])
def test_boxes_are_distributed_as_the_devices(height, width, scale):
    """The last size is one that half of the draws do not fit into."""
    n, ratio = 6000, (3 / 4, 4 / 3)
    words = random_bits(0, 3, 0, 22 * n, np).reshape(n, 22)
    mine = draw_boxes(words, np.full(n, height), np.full(n, width), scale, ratio)
    other = sample_boxes(jax.random.key(4), n, height, width, scale, ratio)
    assert (mine[:, :2] + mine[:, 2:] <= (height, width)).all() and (mine >= 0).all()
    for one, two in zip(mine.T, np.asarray(other).T, strict=True):
        table = np.array([np.bincount(v // 4, minlength=40) for v in (one, two)])
        table = table[:, np.sum(table, axis=0) > 10]
        if table.shape[1] > 1:
            assert stats.chi2_contingency(table).pvalue > LEVEL


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_pixels_are_the_devices_but_for_rounding(interpolation):
    """PIL rounds to whole levels after each of its two passes; the device never does.

    Nor does the device clip between them, so no pixel of noise is near black or white here.
    """
    pixels = np.random.default_rng(0).integers(80, 176, (60, 90, 3), np.uint8)
    boxes = [(0, 0, 60, 90), (10, 20, 16, 16), (3, 4, 50, 70), (5, 6, 7, 9)]
    crop = Crop(24, (0.08, 1.0), (3 / 4, 4 / 3), interpolation)
    mine = [cut(Image.fromarray(pixels), box, crop) for box in boxes]
    device = crop_resize(
        np.stack([pixels] * 4), jnp.int32(boxes), 24, interpolation=interpolation
    )
    off = np.abs(mine - 255 * np.moveaxis(np.asarray(device), 1, -1))
    assert off.max() < 1.5 and off.mean() < 0.35


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_each_view_shows_the_image_that_it_names(store, pairing):
    sampler = Sampler(semantic_pairs(store, seed=0), 8, seed=3, pairing=pairing)
    seen = set()
    for step in range(4):
        batch = dataset(store, pairing)[step]
        shapes = [x.shape for x in batch["crops"]]
        assert shapes == [(8, 2, 16, 16, 3), (8, 1, 8, 8, 3), (8, 1, 24, 24, 3)]
        of_size = {x.shape[2]: list(np.moveaxis(x, 1, 0)) for x in batch["crops"]}
        for view, crop in enumerate(CROPS):
            shown = np.rint(of_size[crop.size].pop(0).mean((1, 2, 3)) / 20)
            np.testing.assert_array_equal(shown, batch["index"][:, view])
        pairs = sampler.batch(step)
        np.testing.assert_array_equal(batch["label"], pairs["label"])
        for views, pair in zip(
            batch["index"].tolist(), pairs["index"].tolist(), strict=True
        ):
            assert views in (([*pair] * 4)[:4], ([*pair[::-1]] * 4)[:4])
            seen.add(views[0] == pair[0])
    assert seen == ({True} if pairing in ("augmented", "both") else {True, False})


def test_the_same_whoever_takes_them_and_from_any_step(store):
    whole = list(iterate(dataset(store, "mixed"), 0, 5, 0))
    shares = [dataset(store, "mixed", share=(p, 2)) for p in (0, 1)]
    for step in range(5):
        joined = jax.tree.map(lambda *x: np.concatenate(x), *(s[step] for s in shares))
        assert_same(joined, whole[step])
    tail = list(iterate(dataset(store, "mixed"), 2, 5, 2, 2))
    assert_same(tail, whole[2:])
    crops = [batch["crops"][0] for batch in whole]
    assert not np.array_equal(crops[0], crops[1])


def test_without_crops_the_centres_are_read(store):
    batch = dataset(store, crops=())[0]
    assert batch["image"].shape == (8, 2, 20, 20, 3)
    np.testing.assert_array_equal(batch["image"], store.images[batch["index"]])


def test_a_file_that_is_damaged_is_said(store, monkeypatch):
    stored = type(store.images).stored

    def cut_off(images, rows):
        return [file[:-20] for file in stored(images, rows)]

    monkeypatch.setattr(type(store.images), "stored", cut_off)
    with pytest.raises(UserError, match="(?i)cannot be decoded .*truncated.*prepare"):
        dataset(store)[0]
    with pytest.raises(UserError, match="cannot be decoded.*prepare the images again"):
        store.read([0])


def test_they_stay_on_the_host(store):
    assert resident.place("auto", store) == (
        "stream",
        "JPEG files, which the host decodes",
    )
    with pytest.raises(UserError, match="placement=device, but .* JPEG files"):
        resident.place("device", store)


def test_all_that_follows_the_crop_is_the_devices():
    """Views of crops are views whose crop is the whole image, with the same random numbers."""
    images = np.random.default_rng(0).integers(0, 256, (6, 2, 16, 16, 3), np.uint8)
    whole = {"crop_scale": (1, 1), "crop_ratio": (1, 1), "size": 16}
    views = [Augment(**whole), Augment(**whole, solarize=0.3)]
    views += [Jigsaw(Augment(**whole), patch=4)]
    make = jax.jit(lambda key, x: make_views(key, x, views))
    finish = jax.jit(lambda key, x: finish_views(key, x, views))
    expected, source = make(jax.random.key(1), images)
    shown = np.take_along_axis(images, source[..., None, None, None], axis=1)
    for one, two in zip(finish(jax.random.key(1), [shown]), expected, strict=True):
        np.testing.assert_allclose(one, two, atol=2e-5)
