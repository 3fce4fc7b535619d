"""Where the images of a store come from, before they are decoded and resized.

A kind of store is a module with a function `scan(argument: str) -> Source`, where a store's
name is MODULE:ARGUMENT (without an argument, it is ""). It may be one of this package or,
with a dot in its import path, any other that Python finds.
"""

import collections
import hashlib
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.stores.image_files import File, Files

# Row to an encoded image, or to pixels uint8 [H, W, 3]. Several threads may call it.
Reader = Callable[[int], bytes | np.ndarray]
# Ids of images, and the side S at which they were prepared, to alpha uint8 [n, S, S], 255
# where only the object is seen and 0 where only the background is; and to the plain colour
# of the background, uint8 [n, 3].
ReadAlpha = Callable[[Sequence[str], int], tuple[np.ndarray, np.ndarray]]


def _few(row: int) -> int:
    return 0


class Source(NamedTuple):
    """Images that can be prepared.

    Attributes:
      name: readable, for the name of a folder.
      key: changes whenever a pixel, a label or an id would.
      meta: gives ids, labels, class_names, attributes, attribute_names and splits, by
        row. It can be slow: it is called only when the images must be prepared.
      open_reader: gives the reader; called only then, too.
      size_of: from a row to the bytes that reading it takes, if these can be many.
      root: the folder or archive in which ids are paths; None if they are not paths.
      read_alpha: separates the object from the background; None if it is unknown.
    """

    name: str
    key: str
    meta: Callable[[], dict[str, Any]]
    open_reader: Callable[[], Reader]
    size_of: Callable[[int], int] = _few
    root: pathlib.Path | None = None
    read_alpha: ReadAlpha | None = None


def source_of_files(
    kind: str,
    files: Files,
    used: Sequence[File],
    ids: Sequence[str],
    meta: Callable[[], dict[str, Any]],
) -> Source:
    """The images of a folder or an archive: its files with the names `ids`, by row.

    Names, sizes and times of the files `used` show whether something changed. `kind` is the
    kind of the store.
    """
    key = hashlib.sha256(b"()")  # Keeps the keys of images that were prepared earlier.
    for file in used:
        line = f"\0{file.name}\0{file.size}\0{file.stamp}"
        key.update(line.encode("utf-8", "surrogateescape"))
    sizes = {file.name: file.size for file in used}
    return Source(
        name=f"{kind}-{files.root.resolve().name}",
        key=key.hexdigest(),
        meta=meta,
        open_reader=lambda: lambda row: files.read(ids[row]),
        size_of=lambda row: sizes[ids[row]],
        root=files.root,
    )


def make_meta(
    ids: list[str],
    classes: list[str | None],
    splits: dict[str, list[int]],
    names: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The meta data of images with one label each.

    Args:
      ids: one for each image.
      classes: of each image; None for an unlabelled one.
      splits: rows of each split; an image may be in several, or in none.
      names: from classes to names that people read; where two classes have one name, the
        class is added.
    """
    known = sorted({c for c in classes if c is not None})
    number = {c: i for i, c in enumerate(known)}
    return {
        "ids": ids,
        "labels": [-1 if c is None else number[c] for c in classes],
        "class_names": tell_apart([(names or {}).get(c, c) for c in known], known),
        "attributes": {},
        "attribute_names": {},
        "splits": splits,
    }


def tell_apart(names: Iterable[str], keys: Iterable[str]) -> list[str]:
    """The names; equal names get their keys added."""
    times = collections.Counter(names)
    both = zip(names, keys, strict=True)
    return [name if times[name] == 1 else f"{name} ({key})" for name, key in both]
