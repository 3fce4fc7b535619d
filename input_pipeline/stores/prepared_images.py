"""Prepared images: decoded and resized once, in a folder that is whole or absent.

Whatever the form of the pixels (`memory_map`, `records`), the folder also holds

* `digests.npy`: uint8 [N, 32], the SHA-256 of each image's pixels (so that a
  fingerprint of any subset costs no pass over the pixels),
* `meta.json`: ids, labels, names, splits, for people and other programs,
* `checked.json`: the size and time of each file of pixels, and the SHA-256 of the two files
  above, noted when they have been verified,
* `skipped.csv`: ids of the images that could not be used, and why, if there are any.

Every opening compares a few images with their SHA-256. If the size or time of a file differs
from the noted one, all its images are compared.
"""

import concurrent.futures
import contextlib
import csv
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from absl import logging

from input_pipeline.stores import decode
from input_pipeline.stores.image_files import can_read_heic
from sp_jax import progress
from sp_jax.cli import check_paths
from sp_jax.errors import UserError
from sp_jax.files import sha256_of, write_text
from sp_jax.json_file import read_json

_NOTE = "checked.json"
_DESCRIPTION = ("meta.json", "digests.npy")
_SKIPPED = "skipped.csv"
_CSV = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
_SAMPLE = 16
_CHUNK_BYTES = 2**22  # Of one thread.


class Pixels(Protocol):
    """Images, read from the disk at one size: uint8 [N, S, S, 3]."""

    shape: tuple[int, int, int, int]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """A new array uint8 [..., S, S, 3] for rows [...]."""

    def stored(self, rows: np.ndarray) -> Sequence[np.ndarray]:
        """The bytes on disk, uint8, of each row of [n]: its pixels, or its file."""


class PixelFiles(Pixels, Protocol):
    """Pixels in several files, one after the other."""

    counts: dict[str, int]  # The number of images in each file, by its name.


class Prepared(NamedTuple):
    """Prepared images, opened: pixels, their SHA-256 digests, meta data and the folder."""

    images: PixelFiles
    digests: np.ndarray
    meta: dict[str, Any]
    folder: pathlib.Path


def data_root(data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    """The folder for prepared data: argument, else $SP_JAX_DATA, else ~/.cache."""
    if data_dir is None:
        data_dir = os.environ.get("SP_JAX_DATA") or "~/.cache/sp_jax"
    check_paths([os.fspath(data_dir)])
    return pathlib.Path(os.path.expanduser(data_dir))


def open_folder(
    folder: pathlib.Path,
    open_pixels: Callable[[dict[str, Any]], PixelFiles],
    verify: bool,
) -> Prepared:
    """Open a prepared folder, and check it as the top of this file says.

    With `verify` all images are compared, whatever is noted.

    Raises:
      UserError: names the file that is missing, damaged or was changed.
      ValueError, OSError: as raised by `open_pixels`.
    """
    noted = _read_note(folder)
    meta = read_json(folder / "meta.json")
    images = open_pixels(meta)
    count = images.shape[0]
    digests = _load_digests(folder / "digests.npy", count)
    if "meta.json" not in noted and not (
        describes(meta, count) and type(meta.get("skipped")) is int
    ):
        raise UserError(
            f"{folder / 'meta.json'} is damaged: it does not describe {count} images"
        )
    names = list(images.counts)
    changed = [verify or noted.get(name) != _stamp(folder / name) for name in names]
    file_of = np.repeat(np.arange(len(names)), list(images.counts.values()))
    compared = np.array(changed)[file_of]
    compared[np.linspace(0, count - 1, _SAMPLE).astype(int)] = True
    wrong = find_damaged(images, digests, np.flatnonzero(compared))
    if len(wrong):
        raise UserError(
            f"{folder / names[file_of[wrong[0]]]} is damaged: the pixels of {len(wrong)} of "
            f"{count} images differ from their SHA-256 in digests.npy, first those of row "
            f"{wrong[0]}"
        )
    if any(changed):
        try:
            note(folder, names)
        except OSError as error:
            logging.warning(
                "%s: all pixels were compared with their SHA-256, and are right. This "
                "cannot be noted (%s), so it will be done again at every opening.",
                folder,
                error,
            )
    return Prepared(images, digests, meta, folder)


def note(folder: pathlib.Path, names: Iterable[str]) -> None:
    """Note that the files of pixels, and the files that describe them, are right."""
    content = {name: _stamp(folder / name) for name in names}
    content |= {name: sha256_of(folder / name) for name in _DESCRIPTION}
    write_text(folder / _NOTE, json.dumps(content))


def _read_note(folder: pathlib.Path) -> dict[str, Any]:
    """The note; {} if it is lost, or an older version wrote the images."""
    try:
        noted = read_json(folder / _NOTE)
    except UserError:
        return {}
    for name in _DESCRIPTION:
        if name in noted and noted[name] != sha256_of(folder / name):
            raise UserError(f"{folder / name} was changed after it was written")
    return noted


def _load_digests(path: pathlib.Path, count: int) -> np.ndarray:
    """The digests of `count` images: uint8 [count, 32]."""
    try:
        # A memory map compares its length with the header before it takes memory.
        digests = np.load(path, mmap_mode="r")
        if digests.shape != (count, 32) or digests.dtype != np.uint8:
            raise ValueError(f"it does not hold the digests of {count} images")
    except (ValueError, EOFError, FileNotFoundError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    return np.array(digests)


def find_damaged(images: Pixels, digests: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The rows whose pixels, or files, differ from their digests."""
    chunk = max(1, _CHUNK_BYTES // int(np.prod(images.shape[1:])))

    def differ(start: int) -> list[int]:
        part = rows[start : start + chunk]
        found = np.stack([digest_pixels(image) for image in images.stored(part)])
        return part[(found != digests[part]).any(1)].tolist()

    starts = range(0, len(rows), chunk)
    threads = min(os.cpu_count() or 1, 16, len(starts) or 1)
    # SHA-256 releases the interpreter lock.
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        found = (map if threads == 1 else pool.map)(differ, starts)
        found = progress.track(found, "comparing pixels", "blocks", len(starts))
        return np.array([row for part in found for row in part], int)


def digest_pixels(image: np.ndarray) -> np.ndarray:
    """SHA-256 of one image's bytes: uint8 [32]."""
    digest = hashlib.sha256(np.ascontiguousarray(image).data).digest()
    return np.frombuffer(digest, np.uint8)


def describes(meta: Any, count: int | None = None) -> bool:
    """Whether meta data has the form of `image_source.make_meta`, for `count` images."""

    def are(values: object, kind: type, length: int | None = None) -> bool:
        if not isinstance(values, list) or length not in (None, len(values)):
            return False
        return set(map(type, values)) <= {kind}

    def within(values: object, first: int, end: int) -> bool:
        return are(values, int) and all(first <= value < end for value in values)

    if not isinstance(meta, dict) or not are(meta.get("ids"), str, count):
        return False
    count = len(meta["ids"])
    names, labels = meta.get("class_names"), meta.get("labels")
    attributes, known = meta.get("attributes"), meta.get("attribute_names")
    splits = meta.get("splits")
    return (
        are(names, str)
        and are(labels, int, count)
        and within(labels, -1, len(names))
        and all(isinstance(part, dict) for part in (attributes, known, splits))
        and attributes.keys() == known.keys()
        and all(are(values, int, count) for values in attributes.values())
        and all(are(values, str) for values in known.values())
        and all(within(rows, 0, count) for rows in splits.values())
    )


def write_skipped(
    folder: pathlib.Path, ids: list[str], skipped: dict[int, str]
) -> None:
    """List the images that were left out, and why."""
    if not skipped:
        return
    with open(folder / _SKIPPED, "w", **_CSV) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", "reason"))
        writer.writerows((ids[row], reason) for row, reason in sorted(skipped.items()))


def can_read_more(reasons: Iterable[str]) -> bool:
    """Whether images that were left out for these reasons can be read by now."""
    return can_read_heic() and decode.NEEDS_HEIC in reasons


def read_skipped(folder: pathlib.Path) -> Iterator[tuple[str, str]]:
    """The id of each image that was left out, and why; it ends where the list is damaged."""
    with contextlib.suppress(OSError, csv.Error, KeyError):
        with open(folder / _SKIPPED, **_CSV) as file:
            for row in csv.DictReader(file):
                yield row["id"], row["reason"]


def report_skipped(prepared: Prepared, max_skipped: float) -> None:
    """Warn if prepared images lack some; raise UserError if they lack too many."""
    meta, path = prepared.meta, prepared.folder / _SKIPPED
    if skipped := meta["skipped"]:
        total = skipped + len(meta["ids"])
        check_skipped(skipped, total, max_skipped, prepared.folder)
        logging.warning("%d of %d images are left out: see %s.", skipped, total, path)
        names, labels = meta["class_names"], set(meta["labels"])
        if lost := [name for i, name in enumerate(names) if i not in labels]:
            logging.warning(
                "These classes have no image left: %s.", ", ".join(lost[:10])
            )


def check_skipped(
    skipped: int, total: int, max_skipped: float, folder: pathlib.Path
) -> None:
    """Raise UserError if too many images were left out."""
    if skipped <= max_skipped * total and skipped < total:
        return
    path, such = folder / _SKIPPED, ""
    for name, reason in itertools.islice(read_skipped(folder), 1):
        such = f", such as {name} ({reason})"
    again = f"if a disk or permissions were to blame, remove {folder} to try them again"
    if skipped == total:
        raise UserError(
            f"None of the {total} images can be read{such}: see {path}; {again}."
        )
    raise UserError(
        f"{skipped} of {total} images cannot be used{such}; all are listed in {path}: fix or "
        f"remove them ({again}), or allow it with max_skipped="
        f"{np.ceil(1000 * skipped / total) / 1000:g} "
        f"(a share; now it is {max_skipped:g}; the flag is --max_skipped, or for a training "
        "--config.data.max_skipped)."
    )


def _stamp(path: pathlib.Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]
