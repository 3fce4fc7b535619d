"""Where the images of a store come from, before they are decoded and resized."""

import collections
import hashlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.stores.image_files import File

# Row to an encoded image, or to pixels uint8 [H, W, 3]. Several threads may call it.
Reader = Callable[[int], bytes | np.ndarray]


class Source(NamedTuple):
    """Images that can be prepared.

    Attributes:
      name: readable, for the name of a folder.
      key: changes whenever a pixel, a label or an id would.
      meta: gives ids, labels, class_names, attributes, attribute_names and splits, by
        row. It can be slow: it is called only when the images must be prepared.
      open_reader: called only then, too.
      size_of: row to the bytes that reading it takes, where these can be many.
    """

    name: str
    key: str
    meta: Callable[[], dict[str, Any]]
    open_reader: Callable[[], Reader]
    size_of: Callable[[int], int] = lambda row: 0


def key_of(files: Iterable[File], *others: object) -> str:
    """SHA-256 hex over names, sizes and times of files, and over further values."""
    whole = hashlib.sha256(repr(others).encode("utf-8", "surrogateescape"))
    for file in files:
        line = f"\0{file.name}\0{file.size}\0{file.stamp}"
        whole.update(line.encode("utf-8", "surrogateescape"))
    return whole.hexdigest()


def make_meta(
    ids: list[str],
    classes: list[str | None],
    splits: dict[str, list[int]],
    names: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The meta data of images with one label each.

    Args:
      ids: one an image.
      classes: its class; None for an unlabelled one.
      splits: rows of each split.
      names: from classes to names that people read; where two classes have one name, the
        class is added.
    """
    known = sorted({c for c in classes if c is not None})
    number = {c: i for i, c in enumerate(known)}
    shown = [(names or {}).get(c, c) for c in known]
    times = collections.Counter(shown)
    return {
        "ids": ids,
        "labels": [-1 if c is None else number[c] for c in classes],
        "class_names": [
            name if times[name] == 1 else f"{name} ({c})"
            for name, c in zip(shown, known, strict=True)
        ],
        "attributes": {},
        "attribute_names": {},
        "splits": splits,
    }
