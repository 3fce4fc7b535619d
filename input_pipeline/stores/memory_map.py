"""Prepared images: decoded and resized once, complete or absent.

A prepared folder `DATA_DIR/NAME-KEY/` holds

* `images.npy`: uint8 [N, S, S, 3], read through a memory map,
* `digests.npy`: uint8 [N, 32], the SHA-256 of each image's pixels (so that a
  fingerprint of any subset costs no pass over the pixels),
* `meta.json`: ids, labels, names, splits, for people and other programs,
* `checked.json`: see `prepared_images`,
* `skipped.csv`: ids of the images that could not be used, and why, if there are any.

It is written as `NAME-KEY.partial` and renamed when complete. A preparation that is killed
at any moment leaves nothing that could be taken for a complete one, and the next one goes
on where it was. A damaged folder is prepared again.
"""

import contextlib
import csv
import errno
import hashlib
import json
import os
import pathlib
import shutil
import time
from typing import Any

import filelock
import numpy as np
from absl import logging

from input_pipeline.stores import decode, pixels, prepared_images
from input_pipeline.stores.image_source import Source
from input_pipeline.stores.prepared_images import Prepared, digest_pixels
from input_pipeline.stores.preparing import decode_rows
from sp_jax.cli import check_paths, describe_os_error
from sp_jax.errors import UserError
from sp_jax.files import write_text
from sp_jax.json_file import read_json

# Part of every cache key: raise it when what is written below changes.
FORMAT = 4
_CHUNK = 2048  # Images between two notes of the progress.
_STALE_SECONDS = 7 * 24 * 3600
_SKIPPED = "skipped.csv"
_HINT = "Another folder for prepared images is chosen by data_dir or $SP_JAX_DATA."


def data_root(data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    """The folder for prepared images: argument, else $SP_JAX_DATA, else ~/.cache."""
    if data_dir is None:
        data_dir = os.environ.get("SP_JAX_DATA") or "~/.cache/sp_jax"
    check_paths([os.fspath(data_dir)])
    return pathlib.Path(os.path.expanduser(data_dir))


def load_or_prepare(
    source: Source,
    image_size: int,
    resize: decode.Resize = "crop",
    data_dir: str | os.PathLike[str] | None = None,
    max_skipped: float = 0.01,
    verify: bool = False,
) -> Prepared:
    """Open the prepared images of a source; prepare them first where needed.

    Args:
      source: the images.
      image_size: side S in pixels.
      resize: how to make them square, see `decode`.
      data_dir: see `data_root`.
      max_skipped: share of the images that may be unusable and left out.
      verify: compare all pixels with their digests, also if nothing seems changed.

    Raises:
      UserError: too many images are unusable, the disk cannot hold them, or max_skipped
        is not in [0, 1].
    """
    check_share(max_skipped)
    key = f"{FORMAT} {image_size} {resize} {decode.VERSION} {source.key}"
    key = hashlib.sha256(key.encode()).hexdigest()[:16]
    # A name may have 255 bytes on most disks.
    final = data_root(data_dir) / f"{source.name[:50]}-{key}"
    prepared = _open(final, verify)
    if prepared is None:
        try:
            locks = final.parent / ".locks"
            locks.mkdir(parents=True, exist_ok=True)
            # Of several processes one prepares; the others wait, and use what it made.
            with filelock.FileLock(locks / final.name):
                prepared = _open(final, verify)
                if prepared is None:
                    _prepare(final, source, image_size, resize, max_skipped)
                    prepared = _open(final)
        except OSError as error:
            raise UserError(
                f"Cannot prepare images in {final.parent}: {describe_os_error(error)} "
                f"{_HINT}"
            ) from error
        if prepared is None:
            raise UserError(
                f"The images prepared in {final} cannot be read back: check that "
                f"disk. {_HINT}"
            )
    report_skipped(prepared.meta, max_skipped, final)
    return prepared


def _open(final: pathlib.Path, verify: bool = False) -> Prepared | None:
    """The prepared folder; None where it is missing or, with a warning, damaged."""
    if not final.exists():
        return None
    try:
        noted = prepared_images.read_note(final)
        images = pixels.NpyPixels(final / "images.npy")
        digests = load_digests(final / "digests.npy", len(images))
        prepared = Prepared(images, digests, read_json(final / "meta.json"))
        prepared_images.check(
            final, noted, ["images.npy"], [len(images)], prepared, verify
        )
    except (ValueError, EOFError, FileNotFoundError) as error:
        if isinstance(error.__cause__, OSError):  # It is there, and cannot be read.
            raise
        logging.warning(
            "The prepared images in %s are not whole and are prepared again (%s).",
            final,
            str(error).rstrip("."),
        )
        return None
    return prepared


def load_digests(path: pathlib.Path, count: int) -> np.ndarray:
    """The digests of so many images: uint8 [count, 32].

    Raises:
      ValueError, EOFError: the file is damaged, or of other images.
    """
    # A memory map's length is compared with the header, before memory is taken.
    digests = np.load(path, mmap_mode="r")
    if digests.shape != (count, 32) or digests.dtype != np.uint8:
        raise ValueError(f"{path} does not hold the digests of {count} images")
    return np.array(digests)


def _prepare(
    final: pathlib.Path,
    source: Source,
    size: int,
    resize: decode.Resize,
    max_skipped: float,
) -> None:
    """Write the prepared folder under another name, then rename it."""
    meta = source.meta()
    count = len(meta["ids"])
    partial = final.with_name(f"{final.name}.partial")
    partial.mkdir(exist_ok=True)
    os.utime(partial)  # It is in use: no process may take it for a leftover.
    _remove_stale(final.parent)
    note = _read_note(partial, count, size)
    done, skipped = note["done"], {int(k): v for k, v in note["skipped"].items()}
    images = _open_array(partial / "images.npy", (count, size, size, 3), done)
    digests = _open_array(partial / "digests.npy", (count, 32), done)
    # What is kept is written without gaps, so that nothing has to be moved at the end.
    end = done - len(skipped)
    rows = decode_rows(source, count, size, resize, start=done)
    for start in range(done, count, _CHUNK):
        for row in range(start, min(start + _CHUNK, count)):
            image = next(rows)
            if isinstance(image, decode.BadImage):
                skipped[row] = str(image)
            else:
                images[end] = image
                digests[end] = digest_pixels(image)
                end += 1
        images.flush()
        digests.flush()
        write_skipped(partial, meta["ids"], skipped)
        check_skipped(len(skipped), count, max_skipped, partial)
        note = {"done": min(start + _CHUNK, count), "skipped": skipped}
        write_text(partial / "progress.json", json.dumps(note))
    check_some(len(skipped), count, partial)
    del images, digests  # Closed before they are cut.
    if skipped:
        _cut(partial / "images.npy", end)
        _cut(partial / "digests.npy", end)
        meta = keep_rows(meta, np.setdiff1d(np.arange(count), list(skipped)))
    meta = {**meta, "skipped": len(skipped)}
    write_text(partial / "meta.json", json.dumps(meta))
    prepared_images.note(partial, ["images.npy"])
    (partial / "progress.json").unlink()
    if final.exists():  # A damaged one.
        shutil.rmtree(final)
    os.replace(partial, final)


def _read_note(partial: pathlib.Path, count: int, size: int) -> dict[str, Any]:
    """How far an earlier preparation came, if its files are whole."""
    nothing = {"done": 0, "skipped": {}}
    try:
        note = read_json(partial / "progress.json")
        done, skipped = note["done"], {int(row) for row in note["skipped"]}
        if done not in range(count + 1) or not skipped <= set(range(done)):
            return nothing
        lengths = [count]
        if done == count:  # It was killed while, or after, they were cut.
            lengths.append(count - len(skipped))
        images = pixels.NpyPixels(partial / "images.npy")
        digests = np.load(partial / "digests.npy", mmap_mode="r")
        if len(images) not in lengths or len(digests) not in lengths:
            return nothing
        if images.shape[1:] != (size, size, 3) or digests.shape[1:] != (32,):
            return nothing
        kept = np.arange(done - len(skipped))
        if len(prepared_images.find_damaged(images, digests, kept)):
            return nothing
    except (FileNotFoundError, ValueError, EOFError, TypeError, KeyError):
        return nothing
    return note


def _open_array(path: pathlib.Path, shape: tuple[int, ...], done: int) -> np.memmap:
    """A uint8 .npy file to write into, as it was if something is done already."""
    if done:
        return np.load(path, mmap_mode="r+")
    need, free = int(np.prod(shape)), shutil.disk_usage(path.parent).free
    path.unlink(missing_ok=True)
    try:
        if need > free:
            raise OSError(errno.ENOSPC, f"only {free / 1e9:.1f} GB are free")
        array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
        # A memory map of a disk that fills up later would die of SIGBUS.
        if hasattr(os, "posix_fallocate"):  # macOS has none.
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise UserError(
            f"{path} needs {need / 1e9:.1f} GB. {describe_os_error(error)} {_HINT}"
        ) from error
    return array


def _cut(path: pathlib.Path, rows: int) -> None:
    """Shorten an .npy file to its first rows; again, if that was interrupted."""
    array = np.load(path, mmap_mode="r")
    shape, first, dtype = (rows, *array.shape[1:]), array.offset, array.dtype
    del array
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    with open(path, "r+b") as file:
        # NumPy pads the header, so that it has one length for every number of rows.
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(first + int(np.prod(shape)) * dtype.itemsize)


def keep_rows(meta: dict[str, Any], kept: np.ndarray) -> dict[str, Any]:
    """The meta data of some rows, renumbered."""
    place = {int(row): i for i, row in enumerate(kept)}

    def select(values):
        return [values[row] for row in place]

    return {
        **meta,
        "ids": select(meta["ids"]),
        "labels": select(meta["labels"]),
        "attributes": {k: select(v) for k, v in meta["attributes"].items()},
        "splits": {
            k: [place[row] for row in rows if row in place]
            for k, rows in meta["splits"].items()
        },
    }


def write_skipped(
    folder: pathlib.Path, ids: list[str], skipped: dict[int, str]
) -> None:
    """List the images that were left out, and why."""
    if not skipped:
        return
    with open(
        folder / _SKIPPED, "w", newline="", encoding="utf-8", errors="surrogateescape"
    ) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", "reason"))
        writer.writerows((ids[row], reason) for row, reason in sorted(skipped.items()))


def check_share(max_skipped: float) -> None:
    """Raise UserError unless it is a share."""
    if not 0 <= max_skipped <= 1:
        raise UserError(f"max_skipped must be from 0 to 1, a share, not {max_skipped}.")


def check_some(skipped: int, total: int, folder: pathlib.Path) -> None:
    """Raise UserError if no image is left."""
    if skipped == total:
        raise UserError(
            f"None of the {total} images can be read: see {folder / _SKIPPED}."
        )


def report_skipped(
    meta: dict[str, Any], max_skipped: float, folder: pathlib.Path
) -> None:
    """Warn if prepared images lack some; raise UserError if they lack too many."""
    skipped = meta["skipped"]
    if skipped:
        total = skipped + len(meta["ids"])
        check_skipped(skipped, total, max_skipped, folder)
        logging.warning(
            "%d of %d images are left out: see %s.", skipped, total, folder / _SKIPPED
        )
        names, labels = meta["class_names"], set(meta["labels"])
        if lost := [name for i, name in enumerate(names) if i not in labels]:
            logging.warning("No image is left of the classes %s.", ", ".join(lost[:10]))


def check_skipped(
    skipped: int, total: int, max_skipped: float, folder: pathlib.Path
) -> None:
    """Raise UserError if too many images were left out."""
    if skipped > max_skipped * total:
        raise UserError(
            f"{skipped} of {total} images cannot be used{_first_skipped(folder)}; all are "
            f"listed in {folder / _SKIPPED}: mend or remove them, or allow it with "
            f"max_skipped={np.ceil(1000 * skipped / total) / 1000:g} (a share; it is "
            f"{max_skipped:g})."
        )


def _first_skipped(folder: pathlib.Path) -> str:
    """Name the first image that was left out; nothing if the list is damaged."""
    try:
        with open(
            folder / _SKIPPED, newline="", encoding="utf-8", errors="surrogateescape"
        ) as file:
            first = next(csv.DictReader(file))
        return f", such as {first['id']} ({first['reason']})"
    except (OSError, csv.Error, StopIteration, KeyError):
        return ""


def _remove_stale(root: pathlib.Path) -> None:
    """Remove what preparations left that were killed a week ago."""
    for path in root.glob("*.partial"):
        with contextlib.suppress(FileNotFoundError):  # Another process was faster.
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
