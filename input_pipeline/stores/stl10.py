"""STL-10 in its binary form: `stl10_binary.tar.gz`, or its folder.

Splits: train (5,000), test (8,000), unlabelled (100,000; it may be missing in a folder), and
fold0 to fold9, the official thousands of train. An id is the split and the number in it, such
as "test/00007". https://cs.stanford.edu/~acoates/stl10/
"""

import contextlib
import functools
import pathlib
import threading
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np

from input_pipeline.stores import archives
from input_pipeline.stores.archives import Archive
from input_pipeline.stores.image_source import Reader, Source
from sp_jax import progress
from sp_jax.errors import UserError

_URL = "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz"
_FILES = {"train": "train_X.bin", "test": "test_X.bin", "unlabelled": "unlabeled_X.bin"}
_LABELS = ("train_y.bin", "test_y.bin")
_TEXTS = ("class_names.txt", "fold_indices.txt")
_BYTES = 3 * 96 * 96
# Images that stay in the memory; rows are asked for by threads, nearly in their order.
_KEPT = 1024


def scan(path: str) -> Source:
    """The images of STL-10; UserError if they are not there, or damaged."""
    archive = archives.find(path, "STL-10", _URL, "stl10_binary", "stl10_binary.tar.gz")
    read = functools.cache(lambda: _meta(archive))

    def open_reader() -> Reader:
        splits = read()["splits"]
        if archive.path.is_dir():
            return _in_any_order(archive.path, splits)
        return _InOrder(lambda: _images(archive, splits))

    return Source(
        name=f"stl10-{archive.path.resolve().name}",
        key=f"stl10 {archive.key()}",
        meta=read,
        open_reader=open_reader,
    )


def _meta(archive: Archive) -> dict[str, Any]:
    sizes, small = {}, {}
    with archive.told(), progress.show(f"reading {archive.path.name}"):
        for name, size, file in archive.files():
            if name in _FILES.values():
                sizes[name] = size
            elif name in (*_LABELS, *_TEXTS):
                small[name] = file.read()
        needed = (*_LABELS, *_TEXTS, _FILES["train"], _FILES["test"])
        if lacks := [name for name in needed if name not in {*sizes, *small}]:
            raise ValueError(f"it lacks {lacks[0]}")
        ids, splits = [], {}
        for split, name in _FILES.items():
            count, rest = divmod(sizes.get(name, 0), _BYTES)
            if rest:
                raise ValueError(f"{name} does not hold a whole number of images")
            if count:
                splits[split] = list(range(len(ids), len(ids) + count))
                ids += [f"{split}/{number:05d}" for number in range(count)]
        labels = np.full(len(ids), -1)
        known = b"".join(small[name] for name in _LABELS)
        if len(known) != len(splits["train"] + splits["test"]):
            raise ValueError("there is not a label for each image of train and test")
        labels[: len(known)] = np.frombuffer(known, np.uint8).astype(int) - 1
        for number, line in enumerate(small["fold_indices.txt"].decode().splitlines()):
            splits[f"fold{number}"] = [int(row) for row in line.split()]
        names = small["class_names.txt"].decode().split()
    return {
        "ids": ids,
        "labels": labels.tolist(),
        "class_names": names,
        "attributes": {},
        "attribute_names": {},
        "splits": splits,
    }


def _in_any_order(folder: pathlib.Path, splits: Collection[str]) -> Reader:
    """Rows of the unpacked files."""
    known = [folder / name for split, name in _FILES.items() if split in splits]
    maps = [np.memmap(path, np.uint8, "r").reshape(-1, 3, 96, 96) for path in known]
    starts = np.cumsum([0, *map(len, maps)])

    def read(row: int) -> np.ndarray:
        part = int(np.searchsorted(starts, row, "right")) - 1
        return maps[part][row - starts[part]].transpose(2, 1, 0)  # By columns.

    return read


def _images(archive: Archive, splits: dict[str, list[int]]) -> Iterator[np.ndarray]:
    """All images of a .tar.gz, uint8 [96, 96, 3], in the order of the rows."""
    with archive.told():
        for split, wanted in _FILES.items():
            with contextlib.closing(archive.files()) as files:
                if split in splits:
                    file = next(file for name, _, file in files if name == wanted)
                for _ in splits.get(split, ()):
                    pixels = np.frombuffer(file.read(_BYTES), np.uint8)
                    yield pixels.reshape(3, 96, 96).transpose(2, 1, 0)


class _InOrder:
    """Rows of images that can only be read from the first one on."""

    def __init__(self, start: Callable[[], Iterator[np.ndarray]]):
        self._start, self._lock = start, threading.Lock()
        self._images, self._next = start(), 0
        self._kept: dict[int, np.ndarray] = {}

    def __call__(self, row: int) -> np.ndarray:
        with self._lock:
            if row < self._next and row not in self._kept:
                self._images, self._next = self._start(), 0
            while self._next <= row:
                image = next(self._images, None)
                if image is None:  # The thread of another row has the reason.
                    raise UserError("The images end too soon.")
                self._kept[self._next] = image
                self._kept.pop(self._next - _KEPT, None)
                self._next += 1
            return self._kept[row]
