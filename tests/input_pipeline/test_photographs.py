"""Photographs in archives that may not be shipped; skipped where they are missing.

$SP_JAX_TEST_DATA is the folder that holds them, else ../shared/data.
"""

import os
import pathlib
import tarfile

import numpy as np
import pytest
from PIL import Image

from input_pipeline.pairs import pairing, summary
from input_pipeline.stores import open_store

ROOT = pathlib.Path(__file__).parents[2]
DATA = pathlib.Path(os.environ.get("SP_JAX_TEST_DATA", ROOT.parent / "shared" / "data"))


def unpack(name, folder, wanted, last):
    """The wanted files among the first ones of an archive."""
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is not there")
    with tarfile.open(DATA / name) as archive:
        for number, member in enumerate(archive):
            if number == last:
                return
            if member.isfile() and wanted(number):
                archive.extract(member, folder, filter="data")


@pytest.mark.archives
def test_tiny_imagenet(tmp_path):
    """Two classes of 314: 157 semantic pairs each, which use every image once."""
    unpack("tiny_imagenet_sp.tar.xz", tmp_path, lambda i: True, 2 * 314)
    root = tmp_path / "tiny_imagenet_sp"
    (root / "wnids.txt").write_text("n01629819\nn01443537\n")
    (root / "words.txt").write_text("n01443537\tgoldfish, Carassius auratus\n")
    store = open_store(f"tiny_imagenet:{root}", "train", data_dir=tmp_path / "data")
    assert store.class_names[0] == "n01443537 goldfish"
    assert np.bincount(store.labels).tolist() == [314, 314]
    row = store.ids.index("train/n01443537/n01443537_1.JPEG")
    with Image.open(root / store.ids[row]) as image:
        assert np.array_equal(store.read(row), np.asarray(image.convert("RGB")))
    table = pairing.class_pairs(store, 157, seed=0)
    numbers = summary.summarize(table, store)
    assert numbers["pairs_a_class"] == [157, 157]
    assert (numbers["images"], numbers["images_used_again"]) == (628, 0)
    assert numbers["pairs_across_classes"] == numbers["near_duplicate_pairs"] == 0


@pytest.mark.archives
def test_cifar10(tmp_path):
    """Enlarged from 32 to 64 px."""
    unpack("cifar10.tar.xz", tmp_path, lambda i: i % 1000 < 10, 2000)
    store = open_store(
        f"folder:{tmp_path / 'cifar10'}", "test", data_dir=tmp_path / "data"
    )
    assert store.class_names == ("airplane", "automobile")
    assert np.bincount(store.labels).tolist() == [10, 10]
    with Image.open(tmp_path / "cifar10" / store.ids[0]) as image:
        assert image.size == (32, 32)
        small = np.asarray(image.convert("RGB"), np.float32)
    shrunk = store.read(0).reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(shrunk - small).mean() < 6
