"""Image files of a folder or of a zip archive, by relative names.

An archive is read in place and never unpacked, so nothing in it can be written anywhere. If
one folder is around everything in it, that is taken for the packed folder itself and does not
count, unless its name is that of a split. Backslashes in its names are slashes.
"""

import contextlib
import errno
import functools
import os
import pathlib
import re
import threading
import zipfile
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import NamedTuple

from sp_jax.errors import UserError

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp"),
    *(".tif", ".tiff", ".avif"),
)
HEIC = (".heic", ".heif")  # Images where pillow-heif is installed.
# Names of folders that are splits, in the order in which they are shown.
SPLITS = ("train", "val", "test")
# Other names of splits that people and programs use.
_SPLIT_NAMES = {
    "train": r"train(ing)?",
    "val": r"val(id(ation)?)?",
    "test": r"test(ing)?",
    "trainval": r"trainval",
    "dev": r"dev(el(opment)?)?",
    "eval": r"eval(uation)?",
}
# The first bytes of image files, whatever their names.
_IMAGE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|BM....\0\0\0\0"
    rb"|II\*\0|MM\0\*|....ftypavi[fs]",
    re.DOTALL,
)
# A file comes into the memory as a whole; 100 megapixels of 16-bit RGBA are 800 MB.
_MAX_BYTES = 10**9


class File(NamedTuple):
    """A file that is not hidden, with values that change when its content does."""

    name: str  # relative to the root, with "/" on every system
    size: int  # bytes
    stamp: int  # the time of its last change in ns; in an archive its checksum


class Files(NamedTuple):
    """All files below a root, sorted by name, and how to read one."""

    root: pathlib.Path  # the folder or archive
    files: tuple[File, ...]  # its files; hidden ones are left out
    # Relative name, and the number of bytes if not all, to content; several threads may call
    # it. It raises OSError for a file that is damaged, encrypted or larger than 1 GB.
    read: Callable[..., bytes]


def is_image(name: str) -> bool:
    """Whether a name ends like that of an image."""
    known = (*SUFFIXES, *HEIC) if can_read_heic() else SUFFIXES
    return name.lower().endswith(known)


@functools.cache
def can_read_heic() -> bool:
    """Whether pillow-heif is installed."""
    return find_spec("pillow_heif") is not None


def heic_of(names: Iterable[str]) -> list[str]:
    """Those names that end like HEIC images, as of phones."""
    return [name for name in names if name.lower().endswith(HEIC)]


def begins_as_image(files: Files, name: str) -> bool:
    """Whether the content of a file begins like an image."""
    try:
        return _IMAGE.match(files.read(name, 16)) is not None
    except OSError:
        return False


def split_of(folder: str) -> str | None:
    """The split that a folder's name means, such as train for Training_set."""
    for split, pattern in _SPLIT_NAMES.items():
        whole = rf"({pattern})([ _-]?(set|split|data|images))?"
        if re.fullmatch(whole, folder, re.IGNORECASE):
            return split
    return None


def list_files(path: str | os.PathLike[str], layout: str) -> Files:
    """List a folder or a zip archive; see the top of this file.

    Links are followed, but not those that lead nowhere or back to a folder above. `layout` says
    what belongs there, for the error: "put images into ...".

    Raises:
      UserError: there is nothing at the path, it cannot be read, or the archive has
        names that point out of it.
    """
    root = pathlib.Path(os.path.expanduser(path))
    if root.is_dir():
        return Files(root, _in_folder(root), read_in(root))
    if root.is_file():
        return _in_archive(root)
    raise UserError(f"There is no folder {root}: create it and {layout}.")


def read_in(root: pathlib.Path) -> Callable[..., bytes]:
    """A function that reads a file of a folder, for `Files`."""

    def read(name: str, most: int = -1) -> bytes:
        with open(root / name, "rb") as file:
            check_size(os.fstat(file.fileno()).st_size)
            return file.read(most)

    return read


def _in_folder(root: pathlib.Path) -> tuple[File, ...]:
    """Every file below a folder; a folder that is its own ancestor is not entered."""
    found = []

    def walk(directory: pathlib.Path, prefix: str, above: frozenset[str]) -> None:
        real = os.path.realpath(directory)
        if real in above:
            return
        for entry in os.scandir(directory):
            if entry.name.startswith("."):  # Also macOS's ._x.jpg, which is no image.
                continue
            name = f"{prefix}{entry.name}"
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError as error:
                if error.errno == errno.ELOOP:  # A link to itself leads nowhere.
                    continue
                raise
            if is_folder:
                walk(pathlib.Path(entry.path), f"{name}/", above | {real})
            elif is_file:
                stat = entry.stat()
                found.append(File(name, stat.st_size, stat.st_mtime_ns))

    try:
        walk(root, "", frozenset())
    except OSError as error:
        said = f"Cannot list {root} ({error}): check its permissions."
        raise UserError(said) from error
    return tuple(sorted(found))


def _in_archive(path: pathlib.Path) -> Files:
    try:
        archive = zipfile.ZipFile(path)
        infos = [info for info in archive.infolist() if not info.is_dir()]
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is neither a folder nor a zip archive ({error}): unpack it, and "
            "give the folder."
        ) from error
    members = {}
    for info in infos:
        name = _name(info)
        parts = name.split("/")
        if ".." in parts or name.startswith("/"):
            raise UserError(
                f"{path} holds the name {info.filename!r}, which points out of the "
                "archive: do not trust it, or pack it again with relative names."
            )
        # The last part is empty where backslashes name a folder.
        hidden = any(part.startswith((".", "__MACOSX")) for part in parts)
        if parts[-1] and not hidden:
            members[name] = info
    tops = {name.partition("/")[0] for name in members}
    around = len(tops) == 1 and all("/" in name for name in members)
    top = f"{tops.pop()}/" if around and not any(map(split_of, tops)) else ""
    members = {name.removeprefix(top): info for name, info in members.items()}
    files = (File(name, info.file_size, info.CRC) for name, info in members.items())
    lock = threading.Lock()

    def read(name: str, most: int = _MAX_BYTES) -> bytes:
        try:
            info = members[name]
            with lock, archive.open(info) as file:
                check_size(info.file_size)
                # Not more, even if the archive says too little.
                return file.read(min(most, info.file_size))
        except MemoryError:
            raise
        except Exception as error:  # zipfile and its decoders raise many types.
            raise OSError(str(error) or type(error).__name__) from error

    return Files(path, tuple(sorted(files)), read)


def _name(info: zipfile.ZipInfo) -> str:
    """The name of a member, with slashes."""
    name = info.filename
    if not info.flag_bits & 0x800:  # zipfile took it for a code page of DOS.
        with contextlib.suppress(UnicodeError):  # It was one.
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/").removeprefix("./")


def key_of(root: pathlib.Path, paths: Iterable[pathlib.Path]) -> str:
    """A key that changes whenever one of some files may have: names, sizes and times."""
    stats = [(path.relative_to(root).as_posix(), path.stat()) for path in paths]
    return repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])


def check_size(size: int) -> None:
    """Raise OSError for a file that has too many bytes."""
    if size > _MAX_BYTES:
        raise OSError(f"{size} bytes are more than {_MAX_BYTES}")
