"""Tables from labels, from folders of two and from other tables; the program."""

import collections
import dataclasses
import json
import subprocess
import sys

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from input_pipeline import pairs
from input_pipeline.pairs import pairing, summary
from input_pipeline.pairs.table import PairTable
from input_pipeline.stores import open_store, prepared_images
from sp_jax.errors import UserError


def unordered(table):
    return [frozenset(p) for p in zip(table.first, table.second, strict=True)]


@hypothesis.settings(deadline=None, max_examples=100)
@hypothesis.given(
    sizes=st.lists(st.integers(2, 13), min_size=1, max_size=4),
    wanted=st.integers(0, 80),
    seed=st.integers(0, 2**40),
)
def test_class_pairs(make_store, sizes, wanted, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.append(np.random.default_rng(0).permutation(labels), -1)
    store = make_store(labels, size=1)
    table = pairing.class_pairs(store, wanted, seed=seed, allow_small=True)
    assert len(set(unordered(table))) == len(table)  # No pair comes twice.
    assert np.all(table.first != table.second)
    for c, size in enumerate(sizes):
        mine = table.label == c
        most = size * (size - 1) // 2
        assert mine.sum() == min(wanted or size // 2, most)
        assert set(labels[table.first[mine]]) == set(labels[table.second[mine]]) == {c}
        times = collections.Counter([*table.first[mine], *table.second[mine]])
        # Every image is used before one is used again, and so on.
        used = sorted((times[i] for i in np.flatnonzero(labels == c)), reverse=True)
        assert used[0] - used[-1] <= 2
        if 2 * mine.sum() <= size:
            assert used[0] == 1
        if 2 * mine.sum() >= size + 1:
            assert used[-1] >= 1
    again = pairing.class_pairs(store, wanted, seed=seed, allow_small=True)
    assert again.digest == table.digest
    # More pairs only add to a class.
    more = pairing.class_pairs(store, len(table) + 1, seed=seed, allow_small=True)
    assert set(unordered(table)) <= set(unordered(more))


def test_classes_that_are_too_small(make_store):
    store = make_store([0, 0, 0, 1, 1, 1, 1, 2])
    with pytest.raises(
        UserError, match="'class0' has 3 images.*4 different pairs.*allow"
    ):
        pairing.class_pairs(store, 4, seed=0)
    with pytest.raises(UserError, match="'class2' has 1 image,"):
        pairing.class_pairs(store, 0, seed=0)
    table = pairing.class_pairs(store, 4, seed=0, allow_small=True)
    assert collections.Counter(table.label.tolist()) == {0: 3, 1: 4}
    assert "2 classes have fewer" in table.source
    # In the order that was asked for.
    table = pairing.class_pairs(store, 1, seed=0, classes=[1, 0])
    assert table.label.tolist() == [1, 0]
    with pytest.raises(UserError, match="has no labels"):
        pairing.class_pairs(make_store([0, -1, -1]), 0, seed=0, classes=[])


def test_subsets_are_nested_and_mixtures_exact(make_store):
    store = make_store(np.repeat(np.arange(3), 20))
    table = pairing.class_pairs(store, 10, seed=1)
    small, large = pairing.subset(table, 3), pairing.subset(table, 7)
    assert collections.Counter(small.label.tolist()) == {0: 3, 1: 3, 2: 3}
    assert set(unordered(small)) < set(unordered(large)) < set(unordered(table))
    with pytest.raises(UserError, match="are 10 pairs .*, not 11"):
        pairing.subset(table, 11)
    for fraction in (0.0, 0.3, 1.0):
        mixed = pairing.mixed_pairs(table, fraction, seed=0)
        assert np.array_equal(mixed.first, table.first)
        semantic = mixed.first != mixed.second
        assert np.array_equal(mixed.second[semantic], table.second[semantic])
        counts = np.bincount(table.label[semantic], minlength=3)
        assert counts.tolist() == [10 * fraction] * 3
    for size in (1, 2, 3, 5):  # what is rounded off in a class is not lost
        many = pairing.class_pairs(make_store(np.repeat(range(20), 10)), size, seed=0)
        for fraction in (0.25, 0.5, 0.6):
            mixed = pairing.mixed_pairs(many, fraction, seed=0)
            semantic = (mixed.first != mixed.second).sum()
            assert semantic == round(fraction * len(many))
    other = pairing.mixed_pairs(table, 0.5, seed=1)
    assert other.digest != pairing.mixed_pairs(table, 0.5, seed=2).digest
    with pytest.raises(UserError, match="between 0 and 1"):
        pairing.mixed_pairs(table, 1.5, seed=0)


def test_both_images_have_their_own_labels(make_store, tmp_path):
    """Of pairs with an image without a label, of two classes, and with a label of its own."""
    store = make_store([0, -1, -1, 1, 1, 0])
    first, second = np.array([1, 0, 3]), np.array([0, 4, 5])
    table = PairTable.of(store, first, second, "mined")
    table = dataclasses.replace(table, label=np.array([-1, 0, 0], np.int32))
    both = pairing.augmented_pairs(table, store, "both")
    assert both.label.tolist() == [-1, 0, 0, 0, 1, 0]
    pairs.save_table(tmp_path / "both.csv", both, store)
    again = pairs.load_table(tmp_path / "both.csv", store)
    assert (again.digest, again.recipe) == (both.digest, both.recipe)


def test_class_lists(make_store, tmp_path):
    store = make_store([0, 1, 2])
    path = tmp_path / "classes.txt"
    path.write_text("# of the paper\nclass2\n\n class0 \n")
    assert pairing.read_classes(path, store) == [2, 0]
    for text, wanted in [
        ("class0\nclass7\n", "line 2: 'tiny' has no class 'class7'"),
        ("class0\nclass1\nclass0\n", "line 3: class 'class0' is there twice"),
    ]:
        path.write_text(text)
        with pytest.raises(UserError, match=wanted):
            pairing.read_classes(path, store)
    with pytest.raises(UserError, match="one class per line"):
        pairing.read_classes(tmp_path / "nowhere.txt", store)
    names = ("n1 dog", "dog big", "dog small")
    store = dataclasses.replace(store, class_names=names)
    path.write_text("n1\ndog small\n", encoding="utf-8-sig")
    assert pairing.read_classes(path, store) == [0, 2]
    store = dataclasses.replace(store, class_names=("n1 dog", "caf\u00e9", "a"))
    for content in (
        "cafe\u0301\rn1 dog\r".encode(),
        "cafe\u0301\r\nn1\r\n".encode("utf-16"),
    ):
        path.write_bytes(content)
        assert pairing.read_classes(path, store) == [1, 0]
    path.write_bytes("caf\u00e9\n".encode("latin-1"))
    with pytest.raises(UserError, match="classes.txt is neither UTF-8 nor UTF-16"):
        pairing.read_classes(path, store)
    store = dataclasses.replace(store, class_names=names)
    path.write_text("dog\n")
    with pytest.raises(UserError, match="2 classes of 'tiny' begin with 'dog'"):
        pairing.read_classes(path, store)


def photograph(seed):
    """Something with large shapes, so that a thumbnail shows it."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(small).resize((64, 64), Image.BICUBIC)


@pytest.fixture
def curated(tmp_path):
    """A folder with a sub-folder a pair."""
    for c in ("cat", "dog"):
        for pair in range(3):
            folder = tmp_path / "pictures" / c / f"pair {pair}"
            folder.mkdir(parents=True)
            photograph(10 * (c == "dog") + pair).save(folder / "a.png")
            photograph(1000 + pair).save(folder / "b.png")
    return tmp_path / "pictures"


def build(*options):
    return subprocess.run(
        [sys.executable, "-m", "input_pipeline.build_pairs", *map(str, options)],
        capture_output=True,
        text=True,
    )


def test_folders_of_two_and_the_program(curated, tmp_path):
    common = f"--store=folder:{curated}", f"--data_dir={tmp_path / 'data'}"
    out = tmp_path / "sp.csv"
    done = build(*common, "--pair_folders", f"--out={out}")
    assert done.returncode == 0, done.stderr
    store = open_store(f"folder:{curated}", data_dir=tmp_path / "data")
    table = pairs.load_table(out, store)
    assert [store.ids[i] for i in table.first[:2]] == [
        "cat/pair 0/a.png",
        "cat/pair 1/a.png",
    ]
    assert [store.ids[i] for i in table.second[:1]] == ["cat/pair 0/b.png"]
    assert table.label.tolist() == [0, 0, 0, 1, 1, 1]
    numbers = json.loads((tmp_path / "sp.json").read_text())
    assert (numbers["pairs"], numbers["classes"], numbers["images"]) == (6, 2, 12)
    # The second images of cats and dogs are the same pictures.
    assert numbers["duplicate_images"] == 6
    with Image.open(tmp_path / "sp.png") as sheet:
        assert sheet.width > 6 * 2 * 64
    done = build(
        *common, f"--pairs={out}", "--kind=augmented", f"--out={tmp_path / 'ap.csv'}"
    )
    assert done.returncode == 0, done.stderr
    matched = pairs.load_table(tmp_path / "ap.csv", store)
    assert np.array_equal(matched.first, table.first)
    assert np.array_equal(matched.second, table.first)
    both = tmp_path / "both.csv"
    words = f"--pairs={out}", "--kind=augmented", "--match=both", f"--out={both}"
    done = build(*common, *words)
    assert done.returncode == 0, done.stderr
    assert json.loads(both.with_suffix(".json").read_text())["images"] == 12
    assert pairs.load_table(both, store).recipe["match"] == "both"
    before = out.read_text()
    done = build(*common, f"--pairs={out}", "--kind=augmented", f"--out={out}")
    assert done.returncode == 2 and "would replace the table" in done.stderr
    assert out.read_text() == before
    (tmp_path / "folder.csv").mkdir()
    done = build(*common, "--pair_folders", f"--out={tmp_path / 'folder.csv'}")
    assert done.returncode == 2 and "/folder.csv' cannot be used: it" in done.stderr
    photograph(0).save(curated / "dog" / "pair 1" / "c.png")
    done = build(*common, "--pair_folders", f"--out={out}")
    assert done.returncode == 2
    assert "'dog/pair 1'" in done.stderr and "has 3 images" in done.stderr
    for flag in ("--match=both", "--semantic_fraction=0.3"):
        done = build(*common, f"--pairs={out}", flag, f"--out={tmp_path / 'no.csv'}")
        assert done.returncode == 2 and f"{flag[:7]}" in done.stderr
    # Its picture would be an image of the store.
    done = build(*common, f"--pairs={out}", f"--out={curated / 'cat' / 'no.csv'}")
    assert done.returncode == 2 and "images of the store" in done.stderr
    assert not [*tmp_path.rglob("no.*")]


def test_copies_and_near_copies_are_counted(tmp_path):
    folder = tmp_path / "pictures" / "c"
    folder.mkdir(parents=True)
    image = photograph(1)
    image.save(folder / "0.png")
    image.save(folder / "1.png")  # The same pixels.
    image.save(folder / "2.jpg", quality=60)  # Nearly the same.
    image.point(lambda value: 0.6 * value).save(folder / "3.png")
    photograph(2).save(folder / "4.png")
    store = open_store(f"folder:{tmp_path / 'pictures'}", data_dir=tmp_path / "data")
    table = PairTable(
        first=np.array([0, 0, 0, 0, 0]),
        second=np.array([1, 2, 3, 4, 0]),
        label=np.zeros(5, int),
        store=store.name,
        split=store.split,
        fingerprint=store.fingerprint,
        source="",
    )
    assert summary.summarize(table, store) == {
        "pairs": 5,
        "augmentation_pairs": 1,
        "classes": 1,
        "pairs_a_class": [5, 5],
        "images": 5,
        "images_used_again": 1,
        "blank_images": 0,
        "duplicate_images": 2,
        "identical_pairs": 1,
        "near_duplicate_pairs": 2,
        "repeated_pairs": 0,
        "pairs_across_classes": 0,
    }
    wrong = dataclasses.replace(
        table,
        first=np.array([0, 1, 0]),
        second=np.array([1, 0, 4]),
        label=np.array([0, 0, -1]),
    )
    numbers = summary.summarize(wrong, store)
    assert (numbers["repeated_pairs"], numbers["pairs_across_classes"]) == (1, 1)
    found = summary.similarity(store, table.first, table.second)
    assert found[[0, 4]] == pytest.approx([1, 1], abs=1e-5) and found[3] < 0.5


@pytest.mark.parametrize("size", [16, 20, 50])
def test_images_without_contrast(make_store, size):
    """Their correlation is undefined; at 20 pixels thumbnails have blocks of two sizes."""
    store = make_store([0] * 12, size=size)
    images = np.full_like(store.images, 200)
    noise = np.random.default_rng(0).integers(-1, 2, images.shape)
    images[1] -= 77
    images[2:4] = images[2:4] + noise[2:4]
    images[4:8] = 0
    half = size // 2
    images[4, half:, :, 0] = images[4, :half, :, 1] = (
        90  # Of one gray, but two colours.
    )
    images[5, :, half:, 0] = images[5, :, :half, 1] = 90
    images[6] = images[4]
    images[7, half:] = 200
    images[8] = 255 - images[7]
    images[9, 0] = 0  # In one line.
    images[10:] = store.images[10:]
    digests = np.stack([prepared_images.digest_pixels(image) for image in images])
    store = dataclasses.replace(store, images=images, digests=digests)
    assert summary.blank(store, np.arange(12)).tolist() == [True] * 4 + [False] * 8
    first = np.array([0, 0, 0, 2, 4, 4, 0, 7, 7, 10, 10])
    second = np.array([0, 1, 2, 3, 5, 6, 7, 8, 7, 11, 10])
    found = summary.similarity(store, first, second)
    wanted = [np.nan] * 7 + [-1, 1]
    kept = [0, 1, 4, 5, 6, 7, 8]  # The others' noise has some correlation or none.
    np.testing.assert_allclose(found[kept], np.array(wanted)[kept], atol=1e-4)
    near = summary.near_duplicates(store, first, second)
    assert near[[0, 1, 4, 5, 6, 7, 8, 9, 10]].tolist() == [
        *(True, False, False, True, False, False, True, False, True)
    ]


def test_only_shown(make_store):
    """Rows of what training shows, the same pictures; all of them: nothing changes."""
    store = make_store(np.repeat(np.arange(3), 6))
    table = pairing.class_pairs(store, 2, seed=1)
    for kind, count in (
        ("semantic", 12),
        ("mixed", 12),
        ("both", 12),
        ("augmented", 6),
    ):
        few, pairs_of = pairing.only_shown(store, table, kind)
        assert len(few) == count
        pairs.check_table(pairs_of, few)
        assert [few.ids[i] for i in pairs_of.first] == [
            store.ids[i] for i in table.first
        ]
        assert np.array_equal(few.read(pairs_of.first), store.read(table.first))
        if kind != "augmented":
            assert np.array_equal(few.read(pairs_of.second), store.read(table.second))
    table = pairing.semantic_pairs(store, seed=1)
    assert pairing.only_shown(store, table, "semantic") == (store, table)
