"""The official layout of Tiny-ImageNet, packed and unpacked."""

import io
import pathlib
import zipfile

import numpy as np
import pytest
from PIL import Image

from input_pipeline.stores import open_store
from input_pipeline.stores.image_source import make_meta
from sp_jax.errors import UserError

TOP = "tiny-imagenet-200"


def jpeg(gray):
    file = io.BytesIO()
    Image.new("L", (64, 64), gray).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def archive(tmp_path):
    """Two classes; the words of more than these, as in the official file."""
    files = {
        "wnids.txt": b"n02\nn01\n",
        "words.txt": b"n00\tentity\nn01\tgoldfish, Carassius auratus\nn02\ttoad\n",
        "val/val_annotations.txt": b"val_0.JPEG\tn02\t0\t32\t44\t62\n"
        b"val_1.JPEG\tn01\t52\t55\t57\t59\n",
        "val/images/val_0.JPEG": jpeg(10),
        "val/images/val_1.JPEG": jpeg(11),
        "test/images/test_0.JPEG": jpeg(20),
        "train/n01/n01_boxes.txt": b"n01_0.JPEG\t0\t10\t63\t58\n",
    }
    for i, name in enumerate(("n01", "n01", "n02")):
        files[f"train/{name}/images/{name}_{i}.JPEG"] = jpeg(i)
    path = tmp_path / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in files.items():
            packed.writestr(f"{TOP}/{name}", content)
    return path


def test_packed_and_unpacked(archive, tmp_path):
    zipfile.ZipFile(archive).extractall(tmp_path)
    stores = [
        {
            split: open_store(
                f"tiny_imagenet:{path}", split, data_dir=tmp_path / "data"
            )
            for split in ("all", "train", "val", "test")
        }
        for path in (archive, tmp_path / TOP)
    ]
    for split, store in stores[0].items():
        assert store.fingerprint == stores[1][split].fingerprint
        assert store.class_names == ("n01 goldfish", "n02 toad")
    train, val, test = (stores[0][split] for split in ("train", "val", "test"))
    assert train.labels.tolist() == [0, 0, 1]
    assert train.images[np.arange(3)][:, 0, 0, 0].tolist() == [0, 1, 2]
    # Of val, the labels are in a table.
    assert val.ids == ("val/images/val_0.JPEG", "val/images/val_1.JPEG")
    assert val.labels.tolist() == [1, 0]
    assert test.labels.tolist() == [-1]


def test_tables_of_other_programs(archive, tmp_path):
    zipfile.ZipFile(archive).extractall(tmp_path)
    root = tmp_path / TOP
    text = (root / "wnids.txt").read_text()
    (root / "wnids.txt").write_text(text, encoding="utf-8-sig")
    words = (root / "words.txt").read_text().replace("\n", "\r\n")
    (root / "words.txt").write_text(words, encoding="utf-16", newline="")
    labels = (root / "val/val_annotations.txt").read_text()
    (root / "val/val_annotations.txt").write_text(labels.replace("\n", "\r"))
    store = open_store(f"tiny_imagenet:{root}", "val", data_dir=tmp_path / "data")
    assert store.class_names == ("n01 goldfish", "n02 toad")
    assert store.labels.tolist() == [1, 0]
    (root / "words.txt").write_bytes(b"n01\tcaf\xe9\n")
    with pytest.raises(UserError, match="words.txt is neither UTF-8 nor UTF-16"):
        open_store(f"tiny_imagenet:{root}", data_dir=tmp_path / "data")


def test_another_layout(archive, tmp_path):
    with pytest.raises(UserError, match="tiny-imagenet-200.zip, and give the path"):
        open_store(f"tiny_imagenet:{tmp_path / 'nowhere'}", data_dir=tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="is not Tiny-ImageNet: download"):
        open_store(f"tiny_imagenet:{tmp_path / 'folder'}", data_dir=tmp_path)
    zipfile.ZipFile(archive).extractall(tmp_path)
    annotations = pathlib.Path(tmp_path, TOP, "val/val_annotations.txt")
    annotations.write_text("val_0.JPEG\tn02\n")
    with pytest.raises(UserError, match="val_1.JPEG is of class None"):
        open_store(f"tiny_imagenet:{tmp_path / TOP}", data_dir=tmp_path)
    annotations.write_text("val_0.JPEG n02\n")
    with pytest.raises(UserError, match="the line 'val_0.JPEG n02' of val/.*no tab"):
        open_store(f"tiny_imagenet:{tmp_path / TOP}", data_dir=tmp_path)
    annotations.unlink()
    with pytest.raises(UserError, match="cannot read val/val_annotations.txt"):
        open_store(f"tiny_imagenet:{tmp_path / TOP}", data_dir=tmp_path)


def test_damaged_table_in_the_archive(archive, tmp_path):
    content = archive.read_bytes().replace(b"n02\nn01\n", b"n02\nn03\n")
    archive.write_bytes(content)
    with pytest.raises(UserError, match="cannot read wnids.txt .*Bad CRC-32"):
        open_store(f"tiny_imagenet:{archive}", data_dir=tmp_path)


def test_many_classes_of_two_names():
    """In linear time: comparing each with each would take minutes."""
    classes = [f"{i:06d}" for i in range(100_000)]
    names = {name: "goldfish" for name in classes[:2]}
    meta = make_meta(classes, classes, {}, names)
    shown = ["goldfish (000000)", "goldfish (000001)", "000002"]
    assert meta["class_names"][:3] == shown and len(meta["class_names"]) == 100_000
