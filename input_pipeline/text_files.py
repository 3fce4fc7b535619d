"""Read text files that other programs wrote, and find the names in them."""

import codecs
import csv
import io
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence

from sp_jax.errors import UserError


def decode(content: bytes, path: str | os.PathLike[str], errors: str = "strict") -> str:
    """The text of a file, with its line ends: UTF-8, or UTF-16 with a byte order mark.

    Errors name the path; `errors` are those of `bytes.decode`, for content that is not UTF-8.
    UserError if it has another encoding, or is not text.
    """
    try:
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            text = content.decode("utf-16")
        else:
            text = content.decode("utf-8-sig", errors)
        if "\0" in text:  # UTF-16 without a mark, UTF-32, and files that are no text.
            raise ValueError("it holds zero bytes")
    except ValueError as error:
        raise UserError(
            f"{path} is neither UTF-8 nor UTF-16 with a byte order mark ({error}): save "
            "it with the encoding UTF-8."
        ) from error
    return text


def read_lines(content: bytes, path: str | os.PathLike[str]) -> list[str]:
    """The lines of a file as `decode` reads it; they end in LF, CR LF or CR."""
    # Not splitlines(): names may hold what it takes for a line end.
    text = decode(content, path).replace("\r\n", "\n").replace("\r", "\n")
    return text.split("\n")


def read_csv(
    lines: Sequence[str], path: str | os.PathLike[str], start: int = 0
) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file that are not empty: number of the first line, from 1, and values.

    The lines, of which `start` are skipped, have their ends: quoted names may contain line
    ends. UserError, with the path, if a quotation mark is not closed.
    """
    reader = csv.reader(lines[start:], strict=True)
    while True:
        number = start + reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise UserError(
                f"{path}, line {number}: the row that begins here is not CSV ({error}): look "
                'for a quotation mark without its partner (").'
            ) from error
        if row is None:
            return
        if row:
            yield number, row


def csv_line(values: Iterable[object]) -> str:
    """A row of a CSV file with its line end, LF."""
    text = io.StringIO()
    # With this end, names that hold either half of it are quoted.
    csv.writer(text, lineterminator="\r\n").writerow(values)
    return text.getvalue().removesuffix("\r\n") + "\n"


def finder(names: Iterable[str]) -> Callable[[str], int | None]:
    """A function from a name to its place among different names; None if it is not there.

    Unicode has two forms of é, and copying files to or from a Mac may change them. A name in
    the other form is found if it can mean only one name.

    Example:
      >>> find = finder(["cafe", "cafe\u0301"])
      >>> find("cafe\u0301"), find("caf\u00e9"), find("the")
      (1, 1, None)
    """
    exact = {name: place for place, name in enumerate(names)}
    composed: dict[str, int | None] = {}
    for name, place in exact.items():
        form = unicodedata.normalize("NFC", name)
        composed[form] = None if form in composed else place

    def find(name: str) -> int | None:
        if name in exact:
            return exact[name]
        return composed.get(unicodedata.normalize("NFC", name))

    return find
