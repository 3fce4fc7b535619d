"""CIFAR-10, CIFAR-100 and STL-10 as their authors packed them: small archives, made here."""

import io
import pickle
import struct
import tarfile

import numpy as np
import pytest

from input_pipeline.stores import archives, open_store, stl10
from sp_jax.errors import UserError

NAMES = {
    "cifar10": {"label": ["airplane", "automobile", "bird"]},
    "cifar100": {"coarse_label": ["fish", "trees"], "label": ["apple", "oak", "ray"]},
}
FOLDERS = {
    "cifar10": ("cifar-10-batches-py", "cifar-10-batches-bin"),
    "cifar100": ("cifar-100-python", "cifar-100-binary"),
}
BATCHES = {
    "cifar10": [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"],
    "cifar100": ["train", "test"],
}


def word(text):
    """A str of Python 2, as its pickle has it."""
    return b"T" + struct.pack("<i", len(text)) + text


def packed(value):
    """A pickle of Python 2, protocol 2, of what the official files hold."""
    if isinstance(value, str):
        return word(value.encode())
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"](" + b"".join(map(packed, value)) + b"e"
    if isinstance(value, dict):
        items = (part for pair in value.items() for part in map(packed, pair))
        return b"}(" + b"".join(items) + b"u"
    rows, columns = map(packed, value.shape)
    start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
    start += packed(0) + b"\x85" + word(b"b") + b"\x87R"
    kind = b"cnumpy\ndtype\n" + word(b"u1") + packed(0) + packed(1) + b"\x87R("
    kind += packed(3) + word(b"|") + b"NNN" + packed(-1) * 2 + packed(0) + b"tb"
    shape = b"(" + packed(1) + rows + columns + b"\x86"
    return start + shape + kind + b"\x89" + word(value.tobytes()) + b"tb"


def write(path, folder, files):
    """An archive .tar.gz of files in a folder."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def images_of(seed, shape, count=4):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def cifar_files(kind, form):
    """The files of four images a batch; of each, three planes of 32 x 32."""
    names, files = NAMES[kind], {}
    for seed, batch in enumerate(BATCHES[kind]):
        pixels = images_of(seed, (3, 32, 32)).reshape(4, -1)
        labels = {key: [i % len(n) for i in range(4)] for key, n in names.items()}
        if form == 1:
            columns = np.array(list(labels.values()), np.uint8).T
            files[f"{batch}.bin"] = np.concatenate([columns, pixels], 1).tobytes()
            continue
        keys = {"label": "fine_labels", "coarse_label": "coarse_labels"}
        keys = {"label": "labels"} if kind == "cifar10" else keys
        content = {keys[key]: values for key, values in labels.items()}
        content |= {"data": pixels, "batch_label": batch, "filenames": ["a.png"] * 4}
        files[batch] = b"\x80\x02" + packed(content) + b"."
    texts = {"label": "fine_label_names", "coarse_label": "coarse_label_names"}
    if kind == "cifar10":
        texts = {"label": "label_names" if form == 0 else "batches.meta"}
    if form == 1:
        for key, known in names.items():
            files[f"{texts[key]}.txt"] = "\n".join([*known, ""]).encode()
    else:
        content = {texts[key]: known for key, known in names.items()}
        name = "batches.meta" if kind == "cifar10" else "meta"
        files[name] = b"\x80\x02" + packed(content) + b"."
    files["readme.html"] = b"<html>"
    return files


@pytest.mark.parametrize("kind", NAMES)
def test_cifar_in_every_form_is_one_store(kind, tmp_path):
    stores = []
    for form, folder in enumerate(FOLDERS[kind]):
        path = tmp_path / f"{form}.tar.gz"
        write(path, folder, cifar_files(kind, form))
        around = tmp_path / f"unpacked{form}"
        with tarfile.open(path) as archive:
            archive.extractall(around, filter="data")
        options = {"image_size": 32, "data_dir": tmp_path / "data"}
        for place in (path, around / folder, around):
            name = f"{kind}:{place}"
            stores.append([open_store(name, s, **options) for s in ("train", "test")])
    train, test = stores[0]
    assert all(a.fingerprint == train.fingerprint for a, _ in stores)
    assert all(b.fingerprint == test.fingerprint for _, b in stores)
    assert train.splits == ("train", "test") and len(test) == 4
    assert train.class_names == tuple(NAMES[kind]["label"])
    assert train.labels[:4].tolist() == [0, 1, 2, 0] and train.ids[1] == "train/00001"
    want = images_of(0, (3, 32, 32)).transpose(0, 2, 3, 1)
    assert np.array_equal(train.read(np.arange(4)), want)
    want = images_of(len(BATCHES[kind]) - 1, (3, 32, 32)).transpose(0, 2, 3, 1)
    assert np.array_equal(test.read(np.arange(4)), want)
    if kind == "cifar100":
        labels, names = test.target("coarse_label")
        assert labels.tolist() == [0, 1, 0, 1] and names == ("fish", "trees")


def stl10_files(unlabelled=100):
    """Three images of train, two of test and many without a label, column after column."""
    planes = {
        name: images_of(i, (3, 96, 96), n)
        for i, (name, n) in enumerate({"train": 3, "test": 2}.items())
    }
    rest = np.zeros((unlabelled, 3, 96, 96), np.uint8)
    rest += np.arange(unlabelled, dtype=np.uint8)[:, None, None, None]
    return {
        "test_X.bin": planes["test"].tobytes(),
        "test_y.bin": bytes([2, 3]),
        "train_X.bin": planes["train"].tobytes(),
        "train_y.bin": bytes([1, 3, 2]),
        "unlabeled_X.bin": rest.tobytes(),
        "class_names.txt": b"airplane\nbird\ncar\n",
        "fold_indices.txt": b"0 2 \n1 2 \n",
    }


def test_stl10_with_unlabelled_images_and_folds(tmp_path):
    path = write(tmp_path / "stl10_binary.tar.gz", "stl10_binary", stl10_files())
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "folder", filter="data")

    def open_(place, split):
        return open_store(
            f"stl10:{place}", split, image_size=96, data_dir=tmp_path / "data"
        )

    for split in ("all", "train", "test", "unlabelled", "fold1"):
        there = [
            open_(place, split).fingerprint for place in (path, tmp_path / "folder")
        ]
        assert there[0] == there[1]
    train = open_(path, "train")
    assert train.splits == ("train", "test", "unlabelled", "fold0", "fold1")
    assert train.labels.tolist() == [0, 2, 1]
    assert train.class_names == ("airplane", "bird", "car")
    # A file has the columns of a channel one after the other.
    want = images_of(0, (3, 96, 96), 3).transpose(0, 3, 2, 1)
    assert np.array_equal(train.read(np.arange(3)), want)
    assert open_(path, "fold1").ids == ("train/00001", "train/00002")
    rest = open_(path, "unlabelled")
    assert len(rest) == 100 and set(rest.labels.tolist()) == {-1}
    assert rest.read([0, 30, 99])[:, 5, 7, 1].tolist() == [0, 30, 99]


def test_rows_may_be_read_again(tmp_path, monkeypatch):
    """As by a resumed preparation, and by threads that overtake each other."""
    monkeypatch.setattr(stl10, "_KEPT", 16)
    path = write(tmp_path / "stl10_binary.tar.gz", "stl10_binary", stl10_files())
    read = stl10.scan(str(path)).open_reader()
    assert [read(row)[0, 0, 0] for row in (90, 80, 7, 104)] == [85, 75, 2, 99]
    with pytest.raises(UserError, match="end too soon"):
        read(105)


@pytest.mark.parametrize(
    "kind, file",
    [
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar100", "cifar-100-python.tar.gz"),
        ("stl10", "stl10_binary.tar.gz"),
    ],
)
def test_what_is_missing_is_named(kind, file, tmp_path):
    with pytest.raises(UserError, match=f"There is no .*nowhere: get .*http.*{file}"):
        open_store(f"{kind}:{tmp_path / 'nowhere'}", data_dir=tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"{file}, or is damaged .it lacks"):
        open_store(f"{kind}:{tmp_path / 'empty'}", data_dir=tmp_path)
    if kind == "stl10":
        whole = write(tmp_path / "whole.tar.gz", "stl10_binary", stl10_files(9))
    else:
        files = cifar_files(kind, 0)
        whole = write(tmp_path / "whole.tar.gz", FOLDERS[kind][0], files)
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=f"whole.tar.gz is not .*{file}, or is damaged"):
        open_store(f"{kind}:{whole}", data_dir=tmp_path)


class Harmful:
    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


def test_a_pickle_that_calls_something_is_refused(tmp_path):
    files = cifar_files("cifar10", 0)
    files["data_batch_2"] = pickle.dumps({"data": Harmful()}, protocol=2)
    path = write(tmp_path / "a.tar.gz", FOLDERS["cifar10"][0], files)
    with pytest.raises(UserError, match="it asks for (__builtin__|builtins).exec"):
        open_store(f"cifar10:{path}", data_dir=tmp_path)


def test_labels_without_names(tmp_path):
    files = cifar_files("cifar100", 1)
    files["fine_label_names.txt"] = b"apple\n"
    path = write(tmp_path / "a.tar.gz", FOLDERS["cifar100"][1], files)
    with pytest.raises(UserError, match="not have a name for each label"):
        open_store(f"cifar100:{path}", data_dir=tmp_path)
    assert archives.find(str(path), "x", "y").path == path
