"""The loop that prepares images: decode, resize, write, note the progress, rename.

It writes a folder `NAME.partial`, which is renamed when it is complete. A preparation that is
killed at any moment leaves nothing that looks like a complete one, and the next one continues
where it was.
"""

import collections
import concurrent.futures
import errno
import json
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import filelock
import numpy as np
from PIL import Image

from input_pipeline.stores import prepared_images
from input_pipeline.stores.decode import BadImage, Budget, decode_as
from input_pipeline.stores.image_source import Source
from sp_jax import progress
from sp_jax.errors import UserError
from sp_jax.files import write_text

_AHEAD = 512  # Images in flight, but not more than:
_BYTES_AHEAD = 10**9
# The bytes of all files that are being decoded; a larger file is refused.
_bytes_in_flight = Budget(10**9)
# Errors that no image causes: of the process, and of a disk in the network.
_LIMITS = (
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    *(errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ECONNRESET),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH),
)
# Files that the complete folder does not need: the writers' notes, and half-written files.
_NOTES = ("progress.json", "digests-*.npy", "skipped-*.json", ".*.tmp")

T = TypeVar("T")


class Writer(Protocol):
    """A form of prepared images, written into a folder."""

    chunk: int  # Rows of the source between two notes.
    done: int  # Rows that an earlier call noted as written.
    skipped: dict[int, str]  # The rows that it left out, and why.
    image_bytes: int  # Approximate memory of an image.

    def convert(self, image: Image.Image) -> np.ndarray:
        """An upright RGB image in this form; several threads may call it."""

    def write(self, images: Iterator[np.ndarray]) -> None:
        """Write the next converted images and their SHA-256 to the disk."""

    def note(self, done: int, skipped: dict[int, str]) -> None:
        """Note that the rows before `done` need not be decoded again."""

    def finish(self, kept: np.ndarray) -> tuple[list[str], dict[str, Any]]:
        """Complete the files of the rows `kept`; returns their names, and more meta data."""


def find_or_make(
    lock: pathlib.Path, find: Callable[[], T | None], make: Callable[[], None]
) -> T | None:
    """The result of `find`; if it finds nothing, `make` makes it first.

    One of several processes makes it; the others wait at the lock, and then find it.
    """
    if not (found := find()):
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()  # If this failed, filelock might wait forever.
        with progress.show(f"waiting for another process that holds {lock}"):
            acquired = filelock.FileLock(lock).acquire()
        with acquired:
            if not (found := find()):
                make()
                found = find()
    return found


def prepare(
    source: Source,
    final: pathlib.Path,
    open_writer: Callable[[pathlib.Path, int], Writer],
    max_skipped: float,
) -> None:
    """Prepare the images of a source in the new folder `final`; the caller holds its lock.

    `open_writer` returns a writer for a folder and a number of images; the rest is as in
    `open_store`.

    Raises:
      UserError: too many images are unusable, there is not enough memory or disk space, or
        the source is wrong.
      OSError: the folder cannot be written.
    """
    meta = source.meta()
    if not prepared_images.describes(meta):
        raise UserError(
            f"{source.name}: the meta data of its Source must have the form that "
            "input_pipeline.stores.image_source.make_meta gives it: correct its store."
        )
    ids = collections.Counter(meta["ids"])
    if again := [name for name, times in ids.items() if times > 1]:
        raise UserError(
            f"{source.name}: {len(again)} ids belong to several images, such as {again[0]!r}. "
            "Tables of pairs name images by their ids: give each image its own."
        )
    partial = final.with_name(f"{final.name}.partial")
    partial.mkdir(exist_ok=True)
    count = len(meta["ids"])
    writer = open_writer(partial, count)
    skipped = dict(writer.skipped)
    form = writer.convert, writer.image_bytes
    images = decode_rows(source, count, *form, start=writer.done)

    def good(rows: range) -> Iterator[np.ndarray]:
        for row in rows:
            image = next(images)
            if isinstance(image, BadImage):
                skipped[row] = str(image)
            else:
                yield image

    for start in range(writer.done, count, writer.chunk):
        rows = range(start, min(start + writer.chunk, count))
        writer.write(good(rows))
        prepared_images.write_skipped(partial, meta["ids"], skipped)
        prepared_images.check_skipped(len(skipped), count, max_skipped, partial)
        writer.note(rows.stop, skipped)
    kept = np.setdiff1d(np.arange(count), list(skipped))
    names, more = writer.finish(kept)
    meta = keep_rows(meta, kept) | {"skipped": len(skipped)} | more
    write_text(partial / "meta.json", json.dumps(meta))
    prepared_images.note(partial, names)
    os.replace(partial, final)
    for pattern in _NOTES:
        for path in final.glob(pattern):
            path.unlink()


def decode_rows(
    source: Source,
    count: int,
    convert: Callable[[Image.Image], np.ndarray],
    image_bytes: int,
    start: int = 0,
) -> Iterator[np.ndarray | BadImage]:
    """Rows start .. count - 1 of a source, converted by threads, or the reasons why not.

    `convert` and `image_bytes` are those of `Writer`.

    Raises:
      UserError: there is not enough memory or threads, or the source gives something other
        than images.
      OSError: too many files are open.
    """
    read = source.open_reader()

    def one(row: int) -> np.ndarray | BadImage:
        try:
            with _bytes_in_flight.hold(source.size_of(row)):
                content = read(row)
                if isinstance(content, bytes):
                    return decode_as(content, convert)
                return convert(_from_array(source.name, content))
        except OSError as error:
            if error.errno in _LIMITS:
                raise
            return BadImage(f"cannot be read: {error}")
        except BadImage as error:
            return BadImage(str(error))  # Its traceback would keep the content.

    threads = min(os.cpu_count() or 1, 32)  # PIL decodes without the interpreter lock.
    ahead = max(1, min(_AHEAD, _BYTES_AHEAD // image_bytes))
    what = f"preparing {source.name}"
    with (
        progress.show(what, count, "images", start) as work,
        concurrent.futures.ThreadPoolExecutor(threads) as pool,
    ):
        for first in range(start, count, ahead):
            try:
                for image in pool.map(one, range(first, min(first + ahead, count))):
                    work.update()
                    yield image
            except (MemoryError, RuntimeError) as error:
                if isinstance(error, RuntimeError) and "new thread" not in str(error):
                    raise
                raise UserError(
                    "There is not enough memory, or there are too many threads, to decode the "
                    "images: end other programs, or raise the limit (ulimit -v, -u)."
                ) from error


def _from_array(name: str, content: Any) -> Image.Image:
    array = np.asarray(content)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3:
        raise UserError(
            f"{name}: the reader of its Source returns {type(content).__name__} "
            f"{array.dtype} {list(array.shape)}: return bytes, or uint8 [H, W, 3]."
        )
    return Image.fromarray(array)


def keep_rows(meta: dict[str, Any], kept: np.ndarray) -> dict[str, Any]:
    """The meta data of some rows, renumbered."""
    place = {int(row): i for i, row in enumerate(kept)}

    def select(values):
        return [values[row] for row in place]

    splits = {
        name: [place[row] for row in rows if row in place]
        for name, rows in meta["splits"].items()
    }
    return {
        **meta,
        "ids": select(meta["ids"]),
        "labels": select(meta["labels"]),
        "attributes": {k: select(v) for k, v in meta["attributes"].items()},
        "splits": splits,
    }
