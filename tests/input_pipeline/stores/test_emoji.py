"""The embedded set: rows, labels, backgrounds and splits."""

import numpy as np
import pytest
from PIL import Image

from input_pipeline.stores import emoji, open_store
from input_pipeline.stores.decode import fit
from input_pipeline.stores.memory_map import NpyPixels
from sp_jax.errors import UserError


def test_rows_labels_and_attributes(emoji_dir):
    store = open_store("emoji", data_dir=emoji_dir)
    assert store.images.shape == (7228, 64, 64, 3)
    assert isinstance(store.images, NpyPixels)  # They stay on disk.
    assert len(set(store.ids)) == len(store)
    assert len(store.class_names) == len(set(store.class_names)) == 1644
    # The same concept everywhere: noto's and twemoji's grinning face.
    rows = [store.ids.index(f"{artist}/1f600") for artist in ("noto", "twemoji")]
    assert [store.class_names[i] for i in store.labels[rows]] == ["grinning face"] * 2
    category, names = store.target("category")
    assert len(names) == 9 and names[category[rows[0]]] == "Smileys & Emotion"
    subcategory, names = store.target("subcategory")
    assert len(names) == 96
    assert names[subcategory[rows[0]]] == "Smileys & Emotion/face-smiling"
    artist, names = store.target("artist")
    assert [names[i] for i in artist[rows]] == ["noto", "twemoji"]
    assert np.all(np.diff(artist) >= 0)  # Sheet after sheet.
    with pytest.raises(UserError, match="no target 'colour'.*subcategory"):
        store.target("colour")


def test_known_drawing_is_where_its_id_says(emoji_dir):
    # The heavy large circle is red in Noto and Twemoji alike; a tile off by one row
    # or column would be another symbol.
    store = open_store("emoji", data_dir=emoji_dir)
    for artist, code, channel in [
        ("noto", "1f534", 0),  # Red circle.
        ("twemoji", "1f7e2", 1),  # Green circle.
        ("fluent_3d", "1f535", 2),  # Blue circle.
        ("emojione_v2", "1f535", 2),
    ]:
        centre = store.images[store.ids.index(f"{artist}/{code}"), 24:40, 24:40]
        assert np.argmax(centre.mean((0, 1))) == channel, (artist, code)


def test_background_comes_from_the_row():
    colours = np.stack([emoji.background(row) for row in range(7228)])
    # Fixed bits for ever: published numbers rest on them.
    assert emoji.background(0).tolist() == colours[0].tolist() == FIRST_COLOURS[0]
    assert emoji.background(7227).tolist() == FIRST_COLOURS[1]
    # Uniform: chi-square over 16 bins a channel, 15 degrees of freedom; independent.
    for channel in range(3):
        counts = np.bincount((colours[:, channel] - 160) // 6, minlength=16)
        assert np.sum((counts - 7228 / 16) ** 2 / (7228 / 16)) < 37.7  # p = 0.001
    assert np.abs(np.corrcoef(colours.T) - np.eye(3)).max() < 0.05


FIRST_COLOURS = [[221, 165, 248], [196, 238, 188]]


def test_composite_lays_the_drawing_on_that_background(emoji_dir):
    store = open_store("emoji", data_dir=emoji_dir)
    tiles = emoji.read_tiles(emoji.ARCHIVE.read_bytes())
    assert tiles.shape == (7228, 64, 64, 4)
    for row in (0, 3000, 7227):
        colour = emoji.background(row)
        # An independent compositor, Pillow's.
        under = Image.new("RGBA", (64, 64), (*colour.tolist(), 255))
        expected = Image.alpha_composite(under, Image.fromarray(tiles[row]))
        expected = np.asarray(expected.convert("RGB")).astype(int)
        assert np.abs(store.images[row] - expected).max() <= 1
        transparent = tiles[row, ..., 3] == 0
        assert transparent.any()
        assert np.all(store.images[row][transparent] == colour)


def test_splits_are_disjoint_by_group(emoji_dir):
    whole = open_store("emoji", data_dir=emoji_dir)
    names = ("pretrain", "probe_train", "probe_test")
    parts = {name: open_store("emoji", name, data_dir=emoji_dir) for name in names}
    groups = {name: set(part.target("group")[0]) for name, part in parts.items()}
    count = len(whole.attribute_names["group"])
    assert sum(map(len, groups.values())) == len(set().union(*groups.values())) == count
    assert len(groups["pretrain"]) == pytest.approx(count / 2, abs=1)
    assert len(groups["probe_train"]) == pytest.approx(count / 4, abs=1)
    assert sorted(sum((part.ids for part in parts.values()), ())) == sorted(whole.ids)
    heldout = open_store("emoji", "heldout", data_dir=emoji_dir)
    assert set(heldout.ids) == {*parts["probe_train"].ids, *parts["probe_test"].ids}
    # A subset keeps pixels, ids and global class ids together.
    for name, part in parts.items():
        assert part.class_names == whole.class_names
        row = whole.ids.index(part.ids[17])
        assert np.array_equal(part.images[17], whole.images[row])
        assert part.labels[17] == whole.labels[row]
        assert part.split == name
    # Never change: published numbers rest on this split.
    assert parts["pretrain"].ids[:2] == ("noto/1f604", "noto/1f601")
    assert [len(part) for part in parts.values()] == [3620, 1810, 1798]
    assert len({part.fingerprint for part in (whole, *parts.values())}) == 4
    # Never change: pair tables are bound to it.
    assert parts["probe_test"].fingerprint.startswith("d6db2d3cb61d01e3")


def test_unknown_split_and_name(emoji_dir):
    with pytest.raises(UserError, match="no split 'train'.*pretrain"):
        open_store("emoji", "train", data_dir=emoji_dir)
    with pytest.raises(UserError, match="'emojis'.*emoji, folder:DIR"):
        open_store("emojis", data_dir=emoji_dir)
    with pytest.raises(UserError, match="image_size"):
        open_store("emoji", image_size=0, data_dir=emoji_dir)


def test_read_gives_new_arrays_and_checks_indices(emoji_dir):
    store = open_store("emoji", "probe_test", data_dir=emoji_dir)
    batch = store.read([[0, 1], [2, 0]])
    assert batch.shape == (2, 2, 64, 64, 3)
    assert np.array_equal(batch[0, 0], batch[1, 1])
    assert not np.shares_memory(batch, store.images)
    for index in (-1, len(store)):
        with pytest.raises(IndexError):
            store.read([index])


@pytest.mark.parametrize("size", [64, 24])
def test_alpha_says_where_prepared_images_show_the_background(size):
    source = emoji.scan()
    ids, rows = source.meta()["ids"], [7000, 3, 900]
    read = source.open_reader()
    alpha, behind = emoji.read_alpha([ids[row] for row in rows], size)
    assert alpha.shape == (3, size, size) and alpha.dtype == behind.dtype == np.uint8
    tiles = emoji.read_tiles(emoji.ARCHIVE.read_bytes())
    for row, a, colour in zip(rows, alpha, behind, strict=True):
        # By alpha, the same drawing on another colour.
        image = fit(Image.fromarray(read(row)), size)
        new = np.array([20, 250, 120])
        got = image + (1 - a[..., None] / 255) * (new - colour.astype(int))
        drawn = emoji.composite(tiles[row], new)
        expected = fit(Image.fromarray(drawn), size).astype(int)
        # Bicubic resizing rings, and what rings beyond 0 or 255 is cut.
        off, moved = (np.abs(x - expected) for x in (got, image))
        assert off.max() <= (1.1 if size == 64 else 25)
        assert off.mean() < 0.2 * moved.mean()
