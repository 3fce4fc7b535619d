"""Prepared folders (complete or absent) and image folders."""

import errno
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import unicodedata
import zipfile

import numpy as np
import pytest
from PIL import Image

from input_pipeline import pairs
from input_pipeline.pairs import pairing
from input_pipeline.stores import memory_map, open_store, prepared_images, preparing
from sp_jax.errors import UserError
from tests.test_json_file import DAMAGED


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


def _folders(data):
    return [path for path in data.iterdir() if path.name != ".locks"]


def test_class_folders(pictures, tmp_path):
    store = _open(pictures, tmp_path / "data")
    assert store.ids == ("cat/a.png", "cat/deeper/b.PNG", "dog/c.jpg", "dog/d.webp")
    assert store.class_names == ("cat", "dog")
    assert store.labels.tolist() == [0, 0, 1, 1]
    assert store.images[0][3, 3].tolist() == [255, 0, 0]
    assert store.images[1][3, 3].tolist() == [0, 255, 0]


def test_split_folders_share_class_ids(tmp_path):
    root = tmp_path / "pictures"
    _write(root / "train" / "cat" / "a.png", (1, 1, 1))
    _write(root / "train" / "dog" / "b.png", (2, 2, 2))
    _write(root / "val" / "dog" / "c.png", (3, 3, 3))
    data = tmp_path / "data"
    val = _open(root, data, "val")
    assert val.ids == ("val/dog/c.png",)
    assert val.class_names == ("cat", "dog") and val.labels.tolist() == [1]
    assert val.images[0][0, 0].tolist() == [3, 3, 3]
    assert len(_open(root, data, "train")) == 2 and len(_open(root, data)) == 3
    with pytest.raises(UserError, match="no split 'test'.*train, val, all"):
        _open(root, data, "test")
    # Folders beside the splits may hold anything but images.
    (root / "annotations").mkdir()
    assert len(_open(root, data)) == 3
    _write(root / "extra" / "e.png", (0, 0, 0))
    with pytest.raises(UserError, match="extra"):
        _open(root, data)


@pytest.mark.parametrize(
    "folders, splits",
    [
        ("Train Test", "train test"),
        ("training validation", "train val"),
        ("TRAIN VAL", "train val"),
        ("train valid test", "train val test"),
        ("training_set test_set", "train test"),
        ("train dev eval", "train dev eval"),
        ("Testing", "test"),
    ],
)
def test_split_folders_of_other_names(tmp_path, folders, splits):
    for folder in folders.split():
        for name in ("cat", "dog"):
            _write(tmp_path / "pets" / folder / name / "a.png", (1, 1, 1))
    store = _open(tmp_path / "pets", tmp_path / "data")
    assert store.class_names == ("cat", "dog")
    assert store.ids[0].split("/")[0] == folders.split()[0]
    for split in splits.split():
        part = _open(tmp_path / "pets", tmp_path / "data", split)
        assert part.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    "names", ["bus Train car", "valid invalid", "development nature"]
)
def test_classes_that_are_called_as_a_split(tmp_path, caplog, names):
    for name in names.split():
        _write(tmp_path / "things" / name / "a.png", (1, 1, 1))
    store = _open(tmp_path / "things", tmp_path / "data")
    assert store.class_names == tuple(sorted(names.split()))
    assert "is used as a class" in caplog.text


@pytest.mark.parametrize(
    "names, said",
    [
        (
            "train/a/0.png Train/a/0.png",
            "two folders for the split train, Train and tr",
        ),
        ("Train/a/0.png Test/a/0.png more/0.png", "outside them, such as more/0.png"),
        ("train_set/train_set/cat/0.png test_set/cat/0.png", "a split in a split"),
    ],
)
def test_split_folders_that_are_ambiguous(tmp_path, names, said):
    for name in names.split():
        _write(tmp_path / "pets" / name, (1, 1, 1))
    with pytest.raises(UserError, match=said):
        _open(tmp_path / "pets", tmp_path / "data")


def test_one_class_in_two_forms_of_unicode(tmp_path):
    for split, form in (("train", "NFC"), ("val", "NFD")):
        name = unicodedata.normalize(form, "Löwe")
        _write(tmp_path / "pets" / split / name / "a.png", (1, 1, 1))
    store = _open(tmp_path / "pets", tmp_path / "data")
    assert store.class_names == (unicodedata.normalize("NFC", "Löwe"),)
    assert len(store) == 2


def test_files_of_other_suffixes(pictures, tmp_path, caplog):
    for name in ("cat/e.jfif", "cat/f.jpe", "dog/without", "dog/x.apng"):
        _write(tmp_path / "a.png", (1, 2, 3))
        (pictures / name).write_bytes((tmp_path / "a.png").read_bytes())
    for name in ("Thumbs.db", "desktop.ini", "list.txt", ".DS_Store", "README"):
        (pictures / "cat" / name).write_bytes(b"no image")
    store = _open(pictures, tmp_path / "data")
    assert store.ids[3:5] == ("cat/f.jpe", "dog/c.jpg") and len(store) == 8
    assert "dog/without" in store.ids and not caplog.text
    (pictures / "fox").mkdir()
    for i in range(3):
        (pictures / "fox" / f"{i}.jxl").write_bytes(b"other")
    (pictures / "dog" / "empty").write_bytes(b"")
    assert len(_open(pictures, tmp_path / "data")) == 8
    for said in (
        "4 files of other kinds (3 .jxl, 1 without a suffix), such as dog/empty",
        "No file of these folders is used: fox.",
    ):
        assert said in caplog.text


def test_flat_folder_is_unlabelled(tmp_path):
    _write(tmp_path / "pictures" / "a.png", (1, 2, 3))
    store = _open(tmp_path / "pictures", tmp_path / "data")
    assert store.labels.tolist() == [-1] and store.class_names == ()
    with pytest.raises(UserError, match="no split 'train', only 'all'.*--split=all"):
        _open(tmp_path / "pictures", tmp_path / "data", "train")
    _write(tmp_path / "pictures" / "cat" / "b.png", (1, 2, 3))
    with pytest.raises(UserError, match="a.png"):
        _open(tmp_path / "pictures", tmp_path / "data")


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(UserError, match="no folder .*nowhere.*class folders"):
        _open(tmp_path / "nowhere", tmp_path / "data")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images.*class folders"):
        _open(tmp_path / "empty", tmp_path / "data")


def test_second_open_decodes_nothing(pictures, tmp_path, monkeypatch):
    first = _open(pictures, tmp_path / "data")

    def fail(*args):
        raise AssertionError("decoded again")

    monkeypatch.setattr(preparing, "decode_as", fail)
    second = _open(pictures, tmp_path / "data")
    assert second.fingerprint == first.fingerprint
    monkeypatch.undo()
    # A changed file, and another size, are other folders.
    _write(pictures / "cat" / "a.png", (255, 255, 0))
    changed = _open(pictures, tmp_path / "data")
    assert changed.images[0][3, 3].tolist() == [255, 255, 0]
    assert changed.fingerprint != first.fingerprint
    assert _open(pictures, tmp_path / "data", size=4).images.shape == (4, 4, 4, 3)
    assert len(_folders(tmp_path / "data")) == 3
    os.utime(pictures / "cat" / "a.png", (0, 0))  # Changed without changing its size.
    _open(pictures, tmp_path / "data")
    assert len(_folders(tmp_path / "data")) == 4


@pytest.mark.parametrize("name", ["images.npy", "digests.npy", "meta.json"])
def test_truncated_folder_is_prepared_again(pictures, tmp_path, name):
    first = _open(pictures, tmp_path / "data")
    (prepared,) = _folders(tmp_path / "data")
    content = (prepared / name).read_bytes()
    pixels = first.read(np.arange(4))
    (prepared / name).write_bytes(content[: len(content) - 50])
    again = _open(pictures, tmp_path / "data")
    assert np.array_equal(again.read(np.arange(4)), pixels)
    assert again.fingerprint == first.fingerprint
    assert (prepared / name).read_bytes() == content
    assert [path.name for path in _folders(tmp_path / "data")] == [prepared.name]


def test_folder_with_too_few_images_is_prepared_again(pictures, tmp_path):
    pixels = _open(pictures, tmp_path / "data").read(np.arange(4))
    (prepared,) = _folders(tmp_path / "data")
    np.save(prepared / "images.npy", pixels[:3])  # A sound file, but not this one.
    assert np.array_equal(_open(pictures, tmp_path / "data").read(np.arange(4)), pixels)


def _flip(path, place, keep_time=False):
    """Damage one byte of a file."""
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(
    "name, place", [("images.npy", -1), ("digests.npy", -1), ("meta.json", -3)]
)
def test_one_byte_that_changed(pictures, tmp_path, name, place, caplog):
    first = _open(pictures, tmp_path / "data")
    pixels = first.read(np.arange(4))
    (prepared,) = _folders(tmp_path / "data")
    content = (prepared / name).read_bytes()
    _flip(prepared / name, place)
    again = _open(pictures, tmp_path / "data")
    assert f"{prepared} are incomplete and are prepared again ({prepared / name}" in (
        caplog.text
    )
    assert np.array_equal(again.read(np.arange(4)), pixels)
    assert again.fingerprint == first.fingerprint
    assert (prepared / name).read_bytes() == content


def test_what_is_compared_and_when(tmp_path, monkeypatch, caplog):
    """A few images at every opening; all when a file changed, or on demand."""
    for i in range(40):
        _write(tmp_path / "pictures" / f"{i:02d}.png", (i, i, i))
    compared, compare = [], prepared_images.find_damaged
    monkeypatch.setattr(
        prepared_images,
        "find_damaged",
        lambda *args: compared.append(len(args[2])) or compare(*args),
    )
    name, data = f"folder:{tmp_path / 'pictures'}", tmp_path / "data"

    def opened(**options):
        compared.clear()
        store = open_store(name, image_size=8, data_dir=data, **options)
        return compared, store.read(np.arange(40))[:, 0, 0, 0].tolist()

    right = list(range(40))
    assert opened() == ([16], right) and opened() == ([16], right)
    (images,) = data.glob("*/images.npy")
    os.utime(images)
    assert opened() == ([40], right) and opened() == ([16], right)
    _flip(images, 128 + 8 * 8 * 3, keep_time=True)  # Of the second image, in secret.
    assert opened()[0] == [16]
    assert opened(verify=True) == ([40, 40, 40], right)  # Twice before: under the lock
    assert "the pixels of 1 of 40 images differ" in caplog.text
    _flip(images, 128, keep_time=True)  # The first is always compared.
    assert opened() == ([16, 16, 16], right)


def test_check_that_cannot_be_noted(pictures, tmp_path, monkeypatch, caplog):
    store = _open(pictures, tmp_path / "data")
    (prepared,) = _folders(tmp_path / "data")
    os.utime(prepared / "images.npy")

    def refuse(path, text):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("input_pipeline.stores.prepared_images.write_text", refuse)
    assert _open(pictures, tmp_path / "data").fingerprint == store.fingerprint
    assert "done again at every opening" in caplog.text


@pytest.mark.parametrize("content", [*DAMAGED.values(), b"{}", b'{"ids": 5}'])
def test_damaged_description_is_written_again(pictures, tmp_path, content):
    first = _open(pictures, tmp_path / "data")
    (prepared,) = _folders(tmp_path / "data")
    for lost in ((), ("checked.json",)):
        (prepared / "meta.json").write_bytes(content)
        for name in lost:
            (prepared / name).unlink()
        again = _open(pictures, tmp_path / "data")
        assert again.ids == first.ids and again.fingerprint == first.fingerprint
    for note in (content, b'{"images.npy": 3, "meta.json": []}'):
        (prepared / "checked.json").write_bytes(note)
        assert _open(pictures, tmp_path / "data").fingerprint == first.fingerprint


# Decodes one image at a time and dies of SIGKILL at the last.
KILLED = """
    import os, signal
    from input_pipeline.stores import memory_map, preparing
    from input_pipeline.stores import open_store
    memory_map._CHUNK, decode, left = 2, preparing.decode_as, [3]
    os.cpu_count = lambda: 1
    preparing._AHEAD = 1
    def decode_or_die(*args):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(*args)
    preparing.decode_as = decode_or_die
    open_store({name!r}, image_size=8, data_dir={data!r})
"""


def test_killed_preparation_is_continued(pictures, tmp_path, monkeypatch):
    data, name = tmp_path / "data", f"folder:{pictures}"
    program = KILLED.format(name=name, data=str(data))
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)])
    assert done.returncode == -signal.SIGKILL
    (left,) = _folders(data)
    assert left.name.endswith(".partial") and (left / "images.npy").exists()
    decoded, decode = [], preparing.decode_as

    def note(content, *args):
        decoded.append(content)
        return decode(content, *args)

    monkeypatch.setattr(preparing, "decode_as", note)
    store = _open(pictures, data)
    # Two of the three were noted as done; threads take the others in any order.
    left = [(pictures / name).read_bytes() for name in store.ids[2:]]
    assert sorted(decoded) == sorted(left)
    monkeypatch.undo()
    other = _open(pictures, tmp_path / "other")
    assert store.fingerprint == other.fingerprint
    assert np.array_equal(store.read(np.arange(4)), other.read(np.arange(4)))
    (final,) = _folders(data)
    assert not final.name.endswith(".partial")


@pytest.mark.parametrize(
    "content",
    [
        *DAMAGED.values(),
        b"{}",
        b'{"done": 9, "skipped": {}}',
        b'{"done": "2", "skipped": {}}',
        b'{"done": 2, "skipped": 5}',
        b'{"done": 2, "skipped": {"3": "late"}}',
        b'{"done": -1, "skipped": {}}',
        None,
    ],
)
def test_damaged_leftover_is_not_continued(pictures, tmp_path, monkeypatch, content):
    """Its note, or its pixels."""
    data, name = tmp_path / "data", f"folder:{pictures}"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):

        def stop(*args):
            raise KeyboardInterrupt

        patched.setattr(memory_map, "_CHUNK", 2)
        patched.setattr(preparing, "keep_rows", stop)
        _open(pictures, data)
    (left,) = _folders(data)
    if content is None:
        _flip(left / "images.npy", -1)
    else:
        (left / "progress.json").write_bytes(content)
    store = open_store(name, image_size=8, data_dir=data)
    assert store.fingerprint == _open(pictures, tmp_path / "other").fingerprint
    assert np.array_equal(
        [prepared_images.digest_pixels(image) for image in store.read(np.arange(4))],
        store.digests,
    )


def test_old_leftovers_are_removed(pictures, tmp_path):
    data, name = tmp_path / "data", "folder-0123456789abcdef.partial"
    old, new, other = data / name, data / f"b{name}", data / "download.partial"
    for path in (old, new, other):
        path.mkdir(parents=True)
    for path in (old, other):
        os.utime(path, (0, 0))
    _open(pictures, data)
    assert not old.exists() and new.exists() and other.exists()


def test_old_leftover_that_is_needed_is_continued(pictures, tmp_path, monkeypatch):
    data = tmp_path / "data"
    program = KILLED.format(name=f"folder:{pictures}", data=str(data))
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)])
    (left,) = _folders(data)
    os.utime(left, (0, 0))
    decoded, decode = [], preparing.decode_as
    monkeypatch.setattr(
        preparing, "decode_as", lambda *args: decoded.append(args) or decode(*args)
    )
    assert len(_open(pictures, data)) == 4 and len(decoded) == 2


def test_leftover_that_vanishes(tmp_path, monkeypatch):
    """Another process removes it after it was listed."""
    gone = [tmp_path / "gone.partial"]
    monkeypatch.setattr(pathlib.Path, "glob", lambda path, pattern: gone)
    memory_map._remove_stale(tmp_path)


@pytest.fixture
def spoiled(pictures):
    """Two of the four cannot be read: the first and the third."""
    (pictures / "cat" / "a.png").write_bytes(b"")
    (pictures / "dog" / "c.jpg").write_bytes(b"")
    return pictures


def test_class_of_which_no_image_is_left_is_named(spoiled, tmp_path, caplog):
    (spoiled / "dog" / "d.webp").write_bytes(b"")
    name = f"folder:{spoiled}"
    store = open_store(name, image_size=8, data_dir=tmp_path / "data", max_skipped=0.8)
    assert store.class_names == ("cat", "dog") and len(store) == 1
    assert "These classes have no image left: dog." in caplog.text


@pytest.mark.parametrize(
    "function, calls",
    [("preparing.decode_as", 2), ("memory_map._cut", 1), ("preparing.keep_rows", 1)],
)
def test_images_left_out_and_a_kill_on_the_way(spoiled, tmp_path, function, calls):
    """While decoding, when one of the two arrays is cut, and when both are."""
    data, name = tmp_path / "data", f"folder:{spoiled}"
    program = f"""
        import os, signal
        from input_pipeline.stores import memory_map, preparing
        from input_pipeline.stores import open_store
        memory_map._CHUNK, preparing._AHEAD, left = 2, 1, [{calls}]
        def once(*args, function={function}):
            done = function(*args)
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return done
        {function} = once
        open_store({name!r}, image_size=8, data_dir={str(data)!r}, max_skipped=0.5)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)])
    assert done.returncode == -signal.SIGKILL
    (left,) = _folders(data)
    assert left.name.endswith(".partial") and (left / "progress.json").exists()
    store = open_store(name, image_size=8, data_dir=data, max_skipped=0.5)
    assert store.ids == ("cat/deeper/b.PNG", "dog/d.webp")
    assert store.labels.tolist() == [0, 1]
    images = store.read(np.arange(2))
    assert images[:, 3, 3].tolist() == [[0, 255, 0], [9, 9, 9]]
    assert np.array_equal(
        [prepared_images.digest_pixels(image) for image in images], store.digests
    )
    (final,) = _folders(data)
    assert sorted(path.name for path in final.iterdir()) == [
        *("checked.json", "digests.npy", "images.npy", "meta.json", "skipped.csv")
    ]
    np.save(data / "same.npy", images)  # The file is what NumPy would write.
    content = (data / "same.npy").read_bytes()
    assert (final / "images.npy").read_bytes() == content


def test_of_two_processes_one_prepares(pictures, tmp_path):
    """The second waits for the first, and decodes nothing."""
    data = tmp_path / "data"
    program = """
        import sys, time
        from input_pipeline.stores import preparing
        from input_pipeline.stores import open_store
        decode, count = preparing.decode_as, [0]
        def slow(*args):
            count[0] += 1
            time.sleep(0.5)
            return decode(*args)
        preparing.decode_as = slow
        store = open_store(sys.argv[1], image_size=8, data_dir=sys.argv[2])
        print(count[0], store.fingerprint)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    command += [f"folder:{pictures}", str(data)]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = sorted(process.communicate()[0].split() for process in both)
    assert [count for count, _ in said] == ["0", "4"]
    assert said[0][1] == said[1][1]


@pytest.mark.parametrize("place", ["/proc/self", "/dev/full"])
def test_place_that_cannot_be_written(pictures, place):
    with pytest.raises(UserError, match=f"Cannot prepare images in {place}.*SP_JAX"):
        _open(pictures, place)


@pytest.mark.parametrize("share", [-1.0, 1.01, float("nan")])
def test_share_of_bad_images_is_from_0_to_1(pictures, tmp_path, share):
    with pytest.raises(UserError, match="max_skipped must be a share"):
        open_store(f"folder:{pictures}", data_dir=tmp_path, max_skipped=share)


def test_without_fallocate(pictures, tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)  # As on macOS.
    assert len(_open(pictures, tmp_path / "data")) == 4


def test_full_disk_is_told_beforehand(pictures, tmp_path, monkeypatch):
    usage = memory_map.shutil._ntuple_diskusage(10, 10, 0)
    monkeypatch.setattr(memory_map.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="0.0 GB are free.*SP_JAX_DATA"):
        _open(pictures, tmp_path / "data")


def test_disk_that_refuses_the_file(pictures, tmp_path):
    """A limit on the size of files stands for a disk that is full after all."""
    program = f"""
        import resource
        from sp_jax.errors import UserError
        from input_pipeline.stores import open_store
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            open_store({f"folder:{pictures}"!r}, image_size=64,
                       data_dir={str(tmp_path / "data")!r})
        except UserError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True
    )
    assert "file would exceed the size limit" in done.stdout, done.stderr
    # Afterwards it works.
    assert len(_open(pictures, tmp_path / "data", size=64)) == 4


def test_default_place(pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("SP_JAX_DATA", str(tmp_path / "here"))
    open_store(f"folder:{pictures}", image_size=8)
    assert len(_folders(tmp_path / "here")) == 1


def test_zip_archive_is_read_in_place(pictures, tmp_path):
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for path in sorted(pictures.rglob("*.*")):
            archive.write(path, f"pets/{path.relative_to(pictures)}")
    store = _open(tmp_path / "pets.zip", tmp_path / "data")
    other = _open(pictures, tmp_path / "data")
    assert store.ids == other.ids and store.fingerprint == other.fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "data",
        "pets.zip",
        "pictures",
    ]


@pytest.mark.parametrize(
    "packed, ids, classes, splits",
    [
        # A folder around everything does not count ...
        ("pets/0.png", "0.png", (), ()),
        ("pets/cat/0.png", "cat/0.png", ("cat",), ()),
        ("pets/train/cat/0.png", "train/cat/0.png", ("cat",), ("train",)),
        # ... but a split does, and a folder beside others.
        ("train/cat/0.png", "train/cat/0.png", ("cat",), ("train",)),
        ("val/0.png", "val/0.png", (), ("val",)),
        ("cat/0.png dog/0.png", "cat/0.png dog/0.png", ("cat", "dog"), ()),
        ("0.png", "0.png", (), ()),
    ],
)
def test_folder_around_everything_in_an_archive(tmp_path, packed, ids, classes, splits):
    _write(tmp_path / "0.png", (1, 2, 3))
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for name in packed.split():
            archive.write(tmp_path / "0.png", name)
    store = _open(tmp_path / "pets.zip", tmp_path / "data")
    assert store.ids == tuple(ids.split()) and store.class_names == classes
    for split in splits:
        assert len(_open(tmp_path / "pets.zip", tmp_path / "data", split)) == 1


def test_archives_of_other_systems(tmp_path):
    """Backslashes of Windows; macOS's copies, and its UTF-8 without the flag."""
    _write(tmp_path / "0.png", (1, 2, 3))
    content = (tmp_path / "0.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "windows.zip", "w") as archive:
        archive.writestr("pets\\cat\\", b"")
        archive.writestr("pets\\cat\\0.png", content)
        archive.writestr("pets\\dog\\0.png", content)
    store = _open(tmp_path / "windows.zip", tmp_path / "data")
    assert store.ids == ("cat/0.png", "dog/0.png")
    with zipfile.ZipFile(tmp_path / "mac.zip", "w") as archive:
        archive.writestr("pets/Low/0.png", content)
        archive.writestr("__MACOSX/pets/Low/._0.png", b"no image")
        archive.writestr("pets/dog/0.png", content)
    packed = (tmp_path / "mac.zip").read_bytes().replace(b"/Low/", "/Lö/".encode())
    (tmp_path / "mac.zip").write_bytes(packed)
    store = _open(tmp_path / "mac.zip", tmp_path / "data")
    assert store.class_names == ("Lö", "dog")


@pytest.mark.parametrize(
    "name", ["../evil.png", "/evil.png", "a/../../evil.png", "a\\..\\..\\evil.png"]
)
def test_archive_with_names_that_point_out_of_it(pictures, tmp_path, name):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.write(pictures / "cat" / "a.png", "cat/a.png")
        archive.writestr(name, (pictures / "cat" / "a.png").read_bytes())
    with pytest.raises(UserError, match="points out of the archive"):
        _open(tmp_path / "bad.zip", tmp_path / "data")
    assert not (tmp_path / "evil.png").exists()


def test_a_file_that_is_no_archive(pictures, tmp_path):
    (tmp_path / "pets.tar").write_bytes(b"no zip")
    with pytest.raises(UserError, match="neither a folder nor a zip archive.*unpack"):
        _open(tmp_path / "pets.tar", tmp_path / "data")


def test_links_and_loops_of_links(pictures, tmp_path):
    (pictures / "cat" / "up").symlink_to(pictures, target_is_directory=True)
    (pictures / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    for link, to in (("loop", "loop"), ("one.png", "two.png"), ("two.png", "one.png")):
        (pictures / "cat" / link).symlink_to(to)
    (tmp_path / "more").mkdir()
    _write(tmp_path / "more" / "e.png", (1, 2, 3))
    (pictures / "linked").symlink_to(tmp_path / "more", target_is_directory=True)
    store = _open(pictures, tmp_path / "data")
    assert store.class_names == ("cat", "dog", "linked")
    assert store.ids[-1] == "linked/e.png" and len(store) == 5


def test_names_with_spaces_and_other_scripts(tmp_path):
    root = tmp_path / "ein Ordner"
    names = ["Katze grau/ä b.png", "猫/写真 1.png", '猫/a,b"c.png']
    for i, name in enumerate(names):
        _write(root / name, (i, i, i))
    # Linux allows names that are not UTF-8.
    raw = os.fsdecode(os.fsencode(root) + b"/raw\xff")
    for name in ("d.png", "e.png"):
        _write(pathlib.Path(raw, name), (9, 9, 9))
    for _ in range(2):  # Prepared, then opened.
        store = _open(root, tmp_path / "data")
        assert set(names) < set(store.ids) and len(store) == 5
        assert store.images[store.ids.index(names[2])][0, 0].tolist() == [2, 2, 2]
    table = pairing.semantic_pairs(store, seed=0)
    pairs.save_table(tmp_path / "pairs.csv", table, store)
    again = pairs.load_table(tmp_path / "pairs.csv", store)
    assert again.digest == table.digest
