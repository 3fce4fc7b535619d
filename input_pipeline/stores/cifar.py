"""The archives of CIFAR-10 and CIFAR-100, in their python and in their binary form.

Both forms give the same store. Images are in the order of the files; an id is the split and
the number in it, such as "train/00007". https://www.cs.toronto.edu/~kriz/cifar.html
"""

import functools
import io
import pickle
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.stores import archives
from input_pipeline.stores.archives import Archive
from input_pipeline.stores.image_source import Reader, Source
from sp_jax import progress

_PIXELS = 3 * 32 * 32
_SITE = "https://www.cs.toronto.edu/~kriz/"


class Target(NamedTuple):
    """A label of the images, and where the files have it."""

    labels: str  # in the pickle of a batch
    names: str  # in the pickle of names
    text: str  # the file of names of the binary form


class Layout(NamedTuple):
    """The names of a set's files, without the .bin of the binary form."""

    title: str
    stem: str  # of the archives' names
    folders: tuple[str, str]  # of the python and of the binary form
    splits: dict[str, tuple[str, ...]]
    names: str  # the pickle of names
    targets: dict[str, Target]  # in the order of a binary record


def scan(kind: str, path: str, layout: Layout) -> Source:
    """The images of an archive or a folder; UserError if it is not there, or damaged."""
    packed = [f"{layout.stem}-{form}.tar.gz" for form in ("python", "binary")]
    where = layout.title, f"{_SITE}{packed[0]}"
    archive = archives.find(path, *where, *layout.folders, *packed)
    read = functools.cache(lambda: _read(archive, layout))

    def open_reader() -> Reader:
        pixels, _ = read()
        return lambda row: pixels[row].reshape(3, 32, 32).transpose(1, 2, 0)

    return Source(
        name=f"{kind}-{archive.path.resolve().name}",
        key=f"{kind} {archive.key()}",
        meta=lambda: read()[1],
        open_reader=open_reader,
    )


def _read(archive: Archive, layout: Layout) -> tuple[np.ndarray, dict[str, Any]]:
    """All pixels, uint8 [N, 3072], and the meta data of the images."""
    found, names = {}, {}
    batches = [batch for files in layout.splits.values() for batch in files]
    texts = {target.text: key for key, target in layout.targets.items()}
    with archive.told(), progress.show(f"reading {archive.path.name}"):
        for name, _, file in archive.files():
            stem = name.removesuffix(".bin")
            if stem in batches:
                read = _read_pickle if name == stem else _read_binary
                found[stem] = read(file.read(), layout)
            elif name in texts:
                names[texts[name]] = file.read().decode().split()
            elif name == layout.names:
                known = load_pickle(file.read())
                for key, target in layout.targets.items():
                    words = known[target.names.encode()]
                    names[key] = [word.decode() for word in words]
        if lacks := [batch for batch in batches if batch not in found]:
            raise ValueError(f"it lacks {lacks[0]}")
        labels = {
            key: np.concatenate([found[batch][1][key] for batch in batches])
            for key in layout.targets
        }
        for key, values in labels.items():
            if len(names.get(key, ())) <= values.max():
                raise ValueError(f"it does not have a name for each {key}")
    ids, splits = [], {}
    for split, files in layout.splits.items():
        count = sum(len(found[batch][0]) for batch in files)
        splits[split] = list(range(len(ids), len(ids) + count))
        ids += [f"{split}/{number:05d}" for number in range(count)]
    attributes = {key: values.tolist() for key, values in labels.items()}
    meta = {
        "ids": ids,
        "labels": attributes.pop("label"),
        "class_names": names.pop("label"),
        "attributes": attributes,
        "attribute_names": names,
        "splits": splits,
    }
    return np.concatenate([found[batch][0] for batch in batches]), meta


Batch = tuple[np.ndarray, dict[str, np.ndarray]]  # pixels uint8 [n, 3072], labels


def _read_binary(content: bytes, layout: Layout) -> Batch:
    """Records of the labels, a byte each, and the pixels."""
    first = len(layout.targets)
    records = np.frombuffer(content, np.uint8).reshape(-1, first + _PIXELS)
    labels = {key: records[:, i] for i, key in enumerate(layout.targets)}
    return records[:, first:], labels


def _read_pickle(content: bytes, layout: Layout) -> Batch:
    batch = load_pickle(content)
    _, shape, kind, by_columns, data = batch[b"data"].state
    if kind.args[0] != b"u1" or by_columns or shape[1:] != (_PIXELS,):
        raise ValueError(f"its data is no array of rows of {_PIXELS} bytes")
    pixels = np.frombuffer(data, np.uint8).reshape(shape)
    labels = {
        key: np.array(batch[target.labels.encode()], np.int64).reshape(len(pixels))
        for key, target in layout.targets.items()
    }
    return pixels, labels


class _Array:
    """An array, or its type, as described in a pickle; nothing is executed."""

    def __init__(self, *args: Any):
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Reads numbers, strings, lists and arrays; it calls nothing that a file names."""

    def find_class(self, module: str, name: str) -> type:
        if (module, name) in (
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        ):
            return _Array
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no data")


def load_pickle(content: bytes) -> dict[bytes, Any]:
    """A pickle of Python 2 whose arrays are `_Array`.

    Raises:
      pickle.UnpicklingError: there is more than data in it; other types if it is damaged.
    """
    return _Unpickler(io.BytesIO(content), encoding="bytes").load()
