"""Writing a file whole or not at all, and whether one can be; the SHA-256 of one."""

import hashlib
import os
import pathlib
import tempfile


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file; what was there before stays on failure.

    A temporary file beside it, `.NAME.PROCESS.tmp`, is renamed: a killed program leaves no
    half file, and of several programs that write it at once the last one stays.

    Raises:
      OSError: it cannot be written; the error names `path`, not the temporary file.
    """
    path = pathlib.Path(path)
    # Of a long name only the beginning: the temporary one may be no longer.
    temporary = path.with_name(f".{path.name[:50]}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text as UTF-8, with unchanged line ends; see `write_bytes`."""
    # Names of files may hold bytes that are not UTF-8; these are written unchanged.
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def check_writable(folder: str | os.PathLike[str]) -> None:
    """Raise OSError now, before long work, if no file can be written into a folder."""
    with tempfile.TemporaryFile(dir=folder):
        pass


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, in hex.

    Raises:
      OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
