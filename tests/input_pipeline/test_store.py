"""Prepared folders (whole or absent) and image folders."""

import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image

from input_pipeline import cache, folder
from input_pipeline.errors import UserError
from input_pipeline.store import open_store


def _write(path, colour, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def pictures(tmp_path):
    """Two classes with four images in three file types."""
    root = tmp_path / "pictures"
    _write(root / "cat" / "a.png", (255, 0, 0))
    _write(root / "cat" / "deeper" / "b.PNG", (0, 255, 0))
    _write(root / "dog" / "c.jpg", (0, 0, 255))
    _write(root / "dog" / "d.webp", (9, 9, 9))
    (root / "dog" / ".hidden.png").write_bytes(b"no image")
    (root / "notes.txt").write_text("not an image")
    return root


def _open(root, data, split=None, size=8):
    return open_store(f"folder:{root}", split, image_size=size, data_dir=data)


def test_class_folders(pictures, tmp_path):
    store = _open(pictures, tmp_path / "data")
    assert store.ids == ("cat/a.png", "cat/deeper/b.PNG", "dog/c.jpg", "dog/d.webp")
    assert store.class_names == ("cat", "dog")
    assert store.labels.tolist() == [0, 0, 1, 1]
    assert store.images[0, 3, 3].tolist() == [255, 0, 0]
    assert store.images[1, 3, 3].tolist() == [0, 255, 0]
    assert isinstance(store.images, np.memmap)


def test_split_folders_share_class_ids(tmp_path):
    root = tmp_path / "pictures"
    _write(root / "train" / "cat" / "a.png", (1, 1, 1))
    _write(root / "train" / "dog" / "b.png", (2, 2, 2))
    _write(root / "val" / "dog" / "c.png", (3, 3, 3))
    data = tmp_path / "data"
    val = _open(root, data, "val")
    assert val.ids == ("val/dog/c.png",)
    assert val.class_names == ("cat", "dog") and val.labels.tolist() == [1]
    assert val.images[0, 0, 0].tolist() == [3, 3, 3]
    assert len(_open(root, data, "train")) == 2 and len(_open(root, data)) == 3
    with pytest.raises(UserError, match="no split 'test'.*train, val, all"):
        _open(root, data, "test")
    # Folders beside the splits may hold anything but images.
    (root / "annotations").mkdir()
    assert len(_open(root, data)) == 3
    _write(root / "extra" / "e.png", (0, 0, 0))
    with pytest.raises(UserError, match="extra"):
        _open(root, data)


def test_flat_folder_is_unlabelled(tmp_path):
    _write(tmp_path / "pictures" / "a.png", (1, 2, 3))
    store = _open(tmp_path / "pictures", tmp_path / "data")
    assert store.labels.tolist() == [-1] and store.class_names == ()
    _write(tmp_path / "pictures" / "cat" / "b.png", (1, 2, 3))
    with pytest.raises(UserError, match="a.png"):
        _open(tmp_path / "pictures", tmp_path / "data")


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(UserError, match="no folder .*nowhere.*class folders"):
        _open(tmp_path / "nowhere", tmp_path / "data")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images.*class folders"):
        _open(tmp_path / "empty", tmp_path / "data")


def test_resize_keeps_the_centre(tmp_path):
    # 40 x 20: red, green (middle 20 columns), blue. The crop sees the green only.
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :10, 0] = pixels[:, 10:30, 1] = pixels[:, 30:, 2] = 255
    for array, name in [(pixels, "wide.png"), (pixels.swapaxes(0, 1), "tall.png")]:
        Image.fromarray(array).save(tmp_path / name)
        small = folder.read_image(tmp_path / name, 10)
        assert small.shape == (10, 10, 3)
        # Bicubic overshoots at the two edges; the rest is plain.
        inner = small[2:-2, 2:-2].reshape(-1, 3)
        assert np.array_equal(inner, np.tile([0, 255, 0], (len(inner), 1)))


def test_resize_is_antialiased(tmp_path):
    # Stripes of one pixel must become gray, not stripes of another period.
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, ::2] = 255
    Image.fromarray(pixels).save(tmp_path / "stripes.png")
    small = folder.read_image(tmp_path / "stripes.png", 16)
    assert np.abs(small[:, 2:-2].astype(int) - 127).max() <= 3


def test_turned_photograph_is_upright(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255  # White on top ...
    exif = Image.Exif()
    exif[0x0112] = 3  # ... shown upside down.
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    image = folder.read_image(tmp_path / "turned.png", 8)
    assert image[:4].max() == 0 and image[4:].min() == 255


def test_corrupt_file_is_named_and_nothing_is_left(pictures, tmp_path):
    damaged = pictures / "dog" / "c.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(damaged)
    damaged.write_bytes(damaged.read_bytes()[:700])
    with pytest.raises(UserError, match=r"dog/c\.jpg"):
        _open(pictures, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(pictures / "dog" / "c.png")
    damaged.unlink()
    with pytest.raises(UserError, match=r"dog/c\.png has more than 8 bits"):
        _open(pictures, tmp_path / "data")


def test_second_open_decodes_nothing(pictures, tmp_path, monkeypatch):
    first = _open(pictures, tmp_path / "data")

    def fail(*args):
        raise AssertionError("decoded again")

    monkeypatch.setattr(folder, "read_image", fail)
    second = _open(pictures, tmp_path / "data")
    assert second.fingerprint == first.fingerprint
    monkeypatch.undo()
    # A changed file, and another size, are other folders.
    _write(pictures / "cat" / "a.png", (255, 255, 0))
    changed = _open(pictures, tmp_path / "data")
    assert changed.images[0, 3, 3].tolist() == [255, 255, 0]
    assert changed.fingerprint != first.fingerprint
    assert _open(pictures, tmp_path / "data", size=4).images.shape == (4, 4, 4, 3)
    assert len(list((tmp_path / "data").iterdir())) == 3
    os.utime(pictures / "cat" / "a.png", (0, 0))  # Changed without changing its size.
    _open(pictures, tmp_path / "data")
    assert len(list((tmp_path / "data").iterdir())) == 4


@pytest.mark.parametrize("name", ["images.npy", "digests.npy", "meta.json"])
def test_truncated_folder_is_prepared_again(pictures, tmp_path, name):
    first = _open(pictures, tmp_path / "data")
    (prepared,) = (tmp_path / "data").iterdir()
    content = (prepared / name).read_bytes()
    pixels = np.array(first.images)
    (prepared / name).write_bytes(content[: len(content) - 50])
    again = _open(pictures, tmp_path / "data")
    assert np.array_equal(again.images, pixels)
    assert again.fingerprint == first.fingerprint
    assert (prepared / name).read_bytes() == content
    assert [path.name for path in (tmp_path / "data").iterdir()] == [prepared.name]


def test_folder_with_too_few_images_is_prepared_again(pictures, tmp_path):
    pixels = np.array(_open(pictures, tmp_path / "data").images)
    (prepared,) = (tmp_path / "data").iterdir()
    np.save(prepared / "images.npy", pixels[:3])  # A sound file, but not this one.
    assert np.array_equal(_open(pictures, tmp_path / "data").images, pixels)


def test_killed_preparation_leaves_nothing_that_looks_complete(pictures, tmp_path):
    data = tmp_path / "data"
    program = f"""
        import os, signal
        from input_pipeline import folder
        from input_pipeline.store import open_store
        read = folder.read_image
        def read_then_die(path, size):
            if str(path).endswith("d.webp"):
                os.kill(os.getpid(), signal.SIGKILL)
            return read(path, size)
        folder.read_image = read_then_die
        open_store({f"folder:{pictures}"!r}, image_size=8, data_dir={str(data)!r})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)])
    assert done.returncode == -signal.SIGKILL
    (left,) = data.iterdir()
    assert ".tmp-" in left.name and (left / "images.npy").exists()
    store = _open(pictures, data)
    assert store.images[3, 0, 0].tolist() == [9, 9, 9]
    # The leftover goes with the first preparation that finds it a day old.
    assert left.exists()
    os.utime(left, (0, 0))
    final = next(path for path in data.iterdir() if path != left)
    (final / "meta.json").unlink()
    _open(pictures, data)
    assert not left.exists()


def test_slower_of_two_preparations_uses_the_first(pictures, tmp_path, monkeypatch):
    """While one process prepares, another one finishes."""
    data, read, done = tmp_path / "data", folder.read_image, []

    def read_after_the_other(path, size):
        if not done:
            done.append(None)
            _open(pictures, data)
            (first,) = [path for path in data.iterdir() if ".tmp-" not in path.name]
            done.append((first / "images.npy").stat().st_ino)
        return read(path, size)

    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # One thread: no race in the test.
    monkeypatch.setattr(folder, "read_image", read_after_the_other)
    store = _open(pictures, data)
    assert store.images[0, 3, 3].tolist() == [255, 0, 0]
    (final,) = data.iterdir()
    # Readers may have the first one open already: it must stay.
    assert (final / "images.npy").stat().st_ino == done[1]


def test_full_disk_is_told_beforehand(pictures, tmp_path, monkeypatch):
    usage = cache.shutil._ntuple_diskusage(10, 10, 0)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="0.0 GB are free.*SP_JAX_DATA"):
        _open(pictures, tmp_path / "data")


def test_default_place(pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("SP_JAX_DATA", str(tmp_path / "here"))
    open_store(f"folder:{pictures}", image_size=8)
    assert len(list((tmp_path / "here").iterdir())) == 1
