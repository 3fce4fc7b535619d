"""Images inside larger files, read in place: by file, first byte and number of bytes.

Tar archives are listed here, also one inside another. A list costs the names and 20 bytes
an image.
"""

import functools
import os
import pathlib
import tarfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.stores.image_files import check_size
from input_pipeline.stores.image_source import Reader, Source
from sp_jax.errors import UserError

_BLOCK = 512  # Bytes of a header in a tar.


class Member(NamedTuple):
    """A file in a tar archive; sorted by name."""

    name: str  # with "/", without "./" before it
    start: int  # its first byte in the whole archive
    size: int  # bytes


class Places(NamedTuple):
    """The places of images, by row."""

    paths: list[pathlib.Path]
    file: np.ndarray  # int32 [N], of the paths
    start: np.ndarray  # int64 [N]
    size: np.ndarray  # int64 [N]

    def read(self, row: int) -> bytes:
        """An encoded image; OSError if the file ends before it does."""
        start, size = int(self.start[row]), int(self.size[row])
        check_size(size)
        with open(self.paths[self.file[row]], "rb", buffering=0) as file:
            content = os.pread(file.fileno(), size, start)
        if len(content) < size:
            raise OSError("its archive ends too soon")
        return content


def make_places(parts: Iterable[tuple[pathlib.Path, list[Member]]]) -> Places:
    """The places of the members of several files, one file after the other."""
    paths, counts, places = [], [], []
    for path, members in parts:
        paths.append(path)
        counts.append(len(members))
        numbers = [(member.start, member.size) for member in members]
        places.append(np.array(numbers, np.int64).reshape(-1, 2))
    file = np.repeat(np.arange(len(paths), dtype=np.int32), counts)
    start, size = np.concatenate([np.empty((0, 2), np.int64), *places]).T.copy()
    return Places(paths, file, start, size)


def list_tar(
    path: pathlib.Path, start: int = 0, end: int | None = None
) -> Iterator[Member]:
    """The files of a tar archive, or of one inside it, in order, without hidden ones.

    Args:
      path: of the archive, not compressed.
      start: the first byte of the inner archive.
      end: the byte after it.

    Raises:
      UserError: it is not a tar archive, or is compressed, damaged, or ends too soon.
    """
    try:
        with open(path, "rb") as file:
            end = os.fstat(file.fileno()).st_size if end is None else end
            file.seek(start)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                while (member := archive.next()) is not None:
                    archive.members.clear()  # It would keep a kilobyte of each.
                    if member.offset >= end:  # One inside, without zeros at its end.
                        break
                    if member.offset_data + member.size > end:
                        raise tarfile.ReadError(f"it ends within {member.name}")
                    name = member.name.removeprefix("./")
                    hidden = any(part.startswith(".") for part in name.split("/"))
                    if (member.islnk() or member.issym()) and not hidden:
                        raise tarfile.ReadError(
                            f"{name} is a link to {member.linkname}, not a file: pack it "
                            "with tar --dereference --hard-dereference"
                        )
                    if member.isfile() and not hidden:
                        yield Member(name, member.offset_data, member.size)
                # A damaged header is the end for tarfile; a true end is zeros or nothing.
                file.seek(archive.offset)
                if archive.offset < end and any(file.read(_BLOCK)):
                    raise tarfile.ReadError(
                        f"no header of a file begins at byte {archive.offset}"
                    )
    except (tarfile.TarError, OSError) as error:
        raise UserError(
            f"{path} is not a complete, uncompressed tar archive ({error}): get it again, or "
            "decompress it first (gunzip), so that it can be read in any order."
        ) from error


def source_of_places(
    name: str, key: str, find: Callable[[], tuple[dict[str, Any], Places]]
) -> Source:
    """Images whose list (meta data and places) takes long to make; see `Source`.

    `find` is called once, when the images must be prepared. The source can be sent to another
    process if `find` can.
    """
    found = _Found(find)
    return Source(name, key, found.meta, found.open_reader, found.size_of)


class _Found:
    def __init__(self, find: Callable[[], tuple[dict[str, Any], Places]]):
        self._find = find

    @functools.cached_property
    def _list(self) -> tuple[dict[str, Any], Places]:
        return self._find()

    def __reduce__(self):
        """Pickle it without the list."""
        return _Found, (self._find,)

    def meta(self) -> dict[str, Any]:
        return self._list[0]

    def open_reader(self) -> Reader:
        return self._list[1].read

    def size_of(self, row: int) -> int:
        return int(self._list[1].size[row])
