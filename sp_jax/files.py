"""Writing a file whole or not at all."""

import os
import pathlib


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text as UTF-8, line ends as they are; what was there before stays on failure.

    A temporary file beside it, `.NAME.tmp`, is renamed, so a killed program leaves no half
    file. Several writers of one file are not foreseen.

    Raises:
      OSError: it cannot be written; the error names `path`, not the temporary file.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        # Names of files may hold bytes that are no UTF-8; they are given back as they are.
        with open(
            temporary, "w", encoding="utf-8", errors="surrogateescape", newline=""
        ) as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
