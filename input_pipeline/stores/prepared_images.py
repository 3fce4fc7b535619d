"""Whether prepared images are still what was written.

`digests.npy` holds the SHA-256 of each image's pixels. Every opening compares a few images;
all of a file are compared when its size or its time differs from `checked.json`, which notes
them (and the SHA-256 of `meta.json` and `digests.npy`) when they have been found right.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from input_pipeline.stores.pixels import Pixels
from sp_jax.errors import UserError
from sp_jax.files import write_text
from sp_jax.json_file import read_json

_NOTE = "checked.json"
_WHOLE = ("meta.json", "digests.npy")
_SAMPLE = 16
_CHUNK_BYTES = 2**22  # Of one thread.


class Prepared(NamedTuple):
    """Prepared images, opened: pixels, their SHA-256 digests and the meta data."""

    images: Pixels
    digests: np.ndarray
    meta: dict[str, Any]


def note(folder: pathlib.Path, names: Sequence[str]) -> None:
    """Note that files of pixels are right, and the files that describe them."""
    content = {name: _stamp(folder / name) for name in names}
    content |= {name: _digest_file(folder / name) for name in _WHOLE}
    write_text(folder / _NOTE, json.dumps(content))


def read_note(folder: pathlib.Path) -> dict[str, Any]:
    """What is noted; {} where that was lost, or an older version wrote the images.

    Raises:
      UserError: names `meta.json` or `digests.npy`, if that was changed.
    """
    try:
        noted = read_json(folder / _NOTE)
    except UserError:
        return {}
    for name in _WHOLE:
        if name in noted and noted[name] != _digest_file(folder / name):
            raise UserError(f"{folder / name} was changed after it was written")
    return noted


def check(
    folder: pathlib.Path,
    noted: dict[str, Any],
    names: Sequence[str],
    counts: Sequence[int],
    prepared: Prepared,
    everything: bool = False,
) -> None:
    """Check prepared images; see the top of this file.

    Args:
      folder: where they are.
      noted: see `read_note`.
      names: the files of pixels.
      counts: how many images each holds.
      prepared: the images.
      everything: compare all images, whatever is noted.

    Raises:
      UserError: names the file that was changed.
    """
    images, digests, meta = prepared
    if "meta.json" not in noted:
        _check_meta(folder / "meta.json", meta, len(images))
    ends = np.cumsum(counts)
    changed = [everything or noted.get(name) != _stamp(folder / name) for name in names]
    rows = np.concatenate(
        [
            np.arange(end - count, end)
            for end, count, new in zip(ends, counts, changed, strict=True)
            if new
        ]
        + [np.linspace(0, len(images) - 1, _SAMPLE).astype(int)]
    )
    wrong = find_damaged(images, digests, np.unique(rows))
    if len(wrong):
        path = folder / names[int(np.searchsorted(ends, wrong[0], side="right"))]
        raise UserError(
            f"{path} is damaged: the pixels of {len(wrong)} of {len(images)} images "
            f"differ from their SHA-256 in digests.npy, first those of row {wrong[0]}"
        )
    if any(changed):
        try:
            note(folder, names)
        except OSError as error:
            logging.warning(
                "%s: all pixels were compared with their SHA-256, and are right; this "
                "cannot be noted (%s), and is done again at every opening.",
                folder,
                error,
            )


def find_damaged(images: Pixels, digests: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Those of some rows whose pixels differ from their digests."""
    chunk = max(1, _CHUNK_BYTES // int(np.prod(images.shape[1:])))

    def differ(start: int) -> list[int]:
        part = rows[start : start + chunk]
        found = np.stack([digest_pixels(image) for image in images[part]])
        return part[(found != digests[part]).any(1)].tolist()

    starts = range(0, len(rows), chunk)
    threads = min(os.cpu_count() or 1, 16, len(starts) or 1)
    # SHA-256 releases the interpreter lock.
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        found = (map if threads == 1 else pool.map)(differ, starts)
        return np.array([row for part in found for row in part], int)


def digest_pixels(image: np.ndarray) -> np.ndarray:
    """SHA-256 of one image's bytes: uint8 [32]."""
    digest = hashlib.sha256(np.ascontiguousarray(image).data).digest()
    return np.frombuffer(digest, np.uint8)


def _check_meta(path: pathlib.Path, meta: dict[str, Any], count: int) -> None:
    """Raise UserError unless it describes so many images."""

    def are(values: object, kind: type, length: int | None = None) -> bool:
        return (
            isinstance(values, list)
            and length in (None, len(values))
            and set(map(type, values)) <= {kind}
        )

    def within(values: object, first: int, end: int) -> bool:
        return are(values, int) and (
            not values or first <= min(values) <= max(values) < end
        )

    names, labels = meta.get("class_names"), meta.get("labels")
    attributes, known = meta.get("attributes"), meta.get("attribute_names")
    splits = meta.get("splits")
    fine = (
        are(meta.get("ids"), str, count)
        and are(names, str)
        and are(labels, int, count)
        and within(labels, -1, len(names))
        and all(isinstance(part, dict) for part in (attributes, known, splits))
        and attributes.keys() == known.keys()
        and all(are(values, int, count) for values in attributes.values())
        and all(are(values, str) for values in known.values())
        and all(within(rows, 0, count) for rows in splits.values())
        and are([meta.get("skipped")], int)
    )
    if not fine:
        raise UserError(f"{path} is damaged: it does not describe {count} images")


def _stamp(path: pathlib.Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _digest_file(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
