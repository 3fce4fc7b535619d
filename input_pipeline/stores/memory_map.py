"""Prepared images in one memory-mapped array, the default form of a store.

The pixels of the folder `DATA_DIR/NAME-KEY/` are in `images.npy`, uint8 [N, S, S, 3];
`prepared_images` says what lies beside them. How far a preparation came is in `progress.json`.
A damaged folder is prepared again.
"""

import contextlib
import errno
import functools
import hashlib
import json
import os
import pathlib
import shutil
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import logging

from input_pipeline.stores import decode, prepared_images, preparing
from input_pipeline.stores.image_source import Source
from input_pipeline.stores.prepared_images import Prepared
from sp_jax.cli import describe_os_error
from sp_jax.errors import UserError
from sp_jax.files import write_text
from sp_jax.json_file import read_json

# Part of every key: raise it when the files that are written below change.
FORMAT = 4
_CHUNK = 2048  # Images between two notes of the progress.
_STALE_SECONDS = 7 * 24 * 3600
_HINT = "To choose another folder for prepared images, set data_dir or $SP_JAX_DATA."


class NpyPixels:
    """The rows of an .npy file; another process that gets it opens the file itself.

    Construction raises ValueError if the file is truncated or holds no images, and OSError if
    it is missing.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self._path = pathlib.Path(path)
        # np.load checks the length of the file against its header.
        self._array = np.load(self._path, mmap_mode="r")
        self.shape = self._array.shape
        self.counts = {self._path.name: len(self._array)}
        if self._array.ndim != 4 or self._array.dtype != np.uint8:
            raise ValueError(f"{path} holds no uint8 images.")

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The pixels of some rows."""
        return np.asarray(self._array[rows])

    def stored(self, rows: np.ndarray) -> np.ndarray:
        """As `Pixels.stored`."""
        return self[rows]

    def __reduce__(self):
        """Pickle the path: otherwise a memory map is sent with all its bytes."""
        return NpyPixels, (self._path,)


def load_or_prepare(
    source: Source,
    image_size: int,
    resize: decode.Resize,
    data_dir: str | os.PathLike[str] | None,
    max_skipped: float,
    verify: bool,
) -> Prepared:
    """Open the images of a source, after preparing them if needed; as in `open_store`."""
    key = f"{FORMAT} {image_size} {resize} {decode.VERSION} {source.key}"
    key = hashlib.sha256(key.encode()).hexdigest()[:16]
    # A name may have 255 bytes on most disks.
    final = prepared_images.data_root(data_dir) / f"{source.name[:50]}-{key}"

    def make() -> None:
        if final.exists():  # A damaged one.
            shutil.rmtree(final)
        writer = functools.partial(_Writer, size=image_size, resize=resize)
        preparing.prepare(source, final, writer, max_skipped)

    lock = final.parent / ".locks" / final.name
    try:
        prepared = preparing.find_or_make(lock, lambda: _open(final, verify), make)
    except OSError as error:
        raise UserError(
            f"Cannot prepare images in {final.parent}: {describe_os_error(error)} {_HINT}"
        ) from error
    if prepared is None:
        raise UserError(
            f"The prepared images in {final} cannot be read back: check that disk. {_HINT}"
        )
    return prepared


def _open(final: pathlib.Path, verify: bool) -> Prepared | None:
    """The prepared folder; None if it is missing or, with a warning, damaged."""
    if not final.exists():
        return None
    path = final / "images.npy"
    reasons = (reason for _, reason in prepared_images.read_skipped(final))
    if prepared_images.can_read_more(reasons):
        logging.warning(
            "HEIC can be read now: the images in %s are prepared again.", final
        )
        return None
    try:
        return prepared_images.open_folder(final, lambda _: NpyPixels(path), verify)
    except (ValueError, EOFError, FileNotFoundError) as error:
        if isinstance(error.__cause__, OSError):  # It exists, but cannot be read.
            raise
        logging.warning(
            "The prepared images in %s are incomplete and are prepared again (%s).",
            final,
            str(error).rstrip("."),
        )
        return None


class _Writer:
    """Writes `images.npy` and `digests.npy`; see `preparing.Writer`."""

    def __init__(
        self, folder: pathlib.Path, count: int, size: int, resize: decode.Resize
    ):
        self.convert = functools.partial(decode.fit, size=size, resize=resize)
        self.image_bytes = 3 * size**2
        os.utime(folder)  # It is in use: no process may take it for a leftover.
        _remove_stale(folder.parent)
        self._folder, self.chunk = folder, _CHUNK
        self.done, self.skipped = _read_progress(folder, count, size)
        pixels = (count, size, size, 3)
        self._images = _open_array(folder / "images.npy", pixels, self.done)
        self._digests = _open_array(folder / "digests.npy", (count, 32), self.done)
        # What is kept is written without gaps, so that nothing has to be moved at the end.
        self._end = self.done - len(self.skipped)

    def write(self, images: Iterator[np.ndarray]) -> None:
        for image in images:
            self._images[self._end] = image
            self._digests[self._end] = prepared_images.digest_pixels(image)
            self._end += 1
        self._images.flush()
        self._digests.flush()

    def note(self, done: int, skipped: dict[int, str]) -> None:
        progress = {"done": done, "skipped": skipped}
        write_text(self._folder / "progress.json", json.dumps(progress))

    def finish(self, kept: np.ndarray) -> tuple[list[str], dict[str, Any]]:
        del self._images, self._digests  # Closed before they are cut.
        for name in ("images.npy", "digests.npy"):
            _cut(self._folder / name, len(kept))
        return ["images.npy"], {}


def _read_progress(
    folder: pathlib.Path, count: int, size: int
) -> tuple[int, dict[int, str]]:
    """The rows that an earlier preparation finished, and what it left out; 0 if damaged."""
    with contextlib.suppress(
        FileNotFoundError, ValueError, EOFError, LookupError, TypeError, AttributeError
    ):
        progress = read_json(folder / "progress.json")
        done = progress["done"]
        skipped = {int(row): reason for row, reason in progress["skipped"].items()}
        lengths = [count]
        if done == count:  # It was killed while, or after, they were cut.
            lengths.append(count - len(skipped))
        images = NpyPixels(folder / "images.npy")
        digests = np.load(folder / "digests.npy", mmap_mode="r")
        kept = np.arange(done - len(skipped))
        if (
            done in range(count + 1)
            and skipped.keys() <= set(range(done))
            and not prepared_images.can_read_more(skipped.values())
            and images.shape[0] in lengths
            and len(digests) in lengths
            and images.shape[1:] == (size, size, 3)
            and digests.shape[1:] == (32,)
            and not len(prepared_images.find_damaged(images, digests, kept))
        ):
            return done, skipped
    return 0, {}


def _open_array(path: pathlib.Path, shape: tuple[int, ...], done: int) -> np.memmap:
    """A uint8 .npy file to write into; the old file if some rows are done already."""
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
    """Shorten an .npy file to its first rows; safe to repeat after an interruption."""
    array = np.load(path, mmap_mode="r")
    shape, first, dtype = (rows, *array.shape[1:]), array.offset, array.dtype
    del array
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    with open(path, "r+b") as file:
        # NumPy pads the header, so that it has one length for every number of rows.
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(first + int(np.prod(shape)) * dtype.itemsize)


def _remove_stale(root: pathlib.Path) -> None:
    """Remove the remains of preparations that were killed a week ago."""
    for path in root.glob(f"*-{'[0-9a-f]' * 16}.partial"):  # no folder of somebody else
        with contextlib.suppress(FileNotFoundError):  # Another process was faster.
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
