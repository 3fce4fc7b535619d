"""The file of a person's decisions, to which lines are only ever appended.

A line is on the disk before the page shows more. A crash can cut off the last line at most. A
line that cannot be written completely, on a full disk, is removed again.
"""

import csv
import datetime
import os
import pathlib
from collections.abc import Iterable, Iterator

from input_pipeline import text_files
from sp_jax.errors import UserError
from sp_jax.files import write_text

_COLUMNS = ("time", "pair", "action", "second")
# A name with a line end must not make two lines: only the last line can be torn.
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r"})


def escape(name: str) -> str:
    """A name in the form of the file, on one line."""
    return name.translate(_ESCAPES)


def now() -> str:
    """The time with its zone, to the microsecond; decisions of one sheet share a time."""
    return datetime.datetime.now().astimezone().isoformat(timespec="microseconds")


def split(line: str) -> list[str]:
    """The values of a line; ValueError or csv.Error if it has not one for each column."""
    (values,) = csv.reader([line], strict=True)
    if len(values) != len(_COLUMNS):
        raise ValueError(f"it has {len(values)} values, not {len(_COLUMNS)}")
    return values


class Log:
    """Decisions in the file at `path`."""

    def __init__(self, path: str | os.PathLike[str], belongs: str) -> None:
        """Read or write nothing yet.

        Args:
          path: of the file.
          belongs: what the file belongs to: the digest of the pairs, and more.
        """
        self.path = pathlib.Path(path)
        self._head = f"# decisions on the pairs {belongs}\n{','.join(_COLUMNS)}\n"

    def begin(self) -> None:
        """Make the file, if there is none or a crash has cut off its header."""
        whole = self._head.encode()
        if not self.path.exists() or (
            self.path.stat().st_size < len(whole)
            and whole.startswith(self.path.read_bytes())
        ):
            write_text(self.path, self._head)

    def read(self) -> tuple[Iterator[tuple[int, str]], str]:
        """The whole lines after the header with their numbers, and a torn last one or "".

        Raises:
          UserError: the file belongs to other pairs.
        """
        content = self.path.read_bytes()
        end = content.rfind(b"\n") + 1
        # Not splitlines(): names hold more line ends than a file does.
        lines = content[:end].decode("utf-8-sig", "surrogateescape").split("\n")[:-1]
        # Spreadsheet programs pad the first line with commas, and change line ends.
        begin = [line.rstrip(",\r").strip('"') for line in lines[:2]]
        if begin != self._head.splitlines():
            raise UserError(
                f"{self.path} holds decisions on other pairs or a merge of other people, or "
                "another program has changed its first two lines: move it away, or open "
                "the pairs that it belongs to."
            )
        torn = content[end:].decode("utf-8", "surrogateescape")
        return enumerate(lines[2:], 3), torn

    def mend(self, drop: bool) -> None:
        """Remove a torn last line, or add a line end that an editor has left out."""
        with open(self.path, "r+b") as file:
            content = file.read()
            if drop:
                file.truncate(content.rfind(b"\n") + 1)
            else:
                file.write(b"\n")

    def append(self, lines: Iterable[tuple[str, int, str, str]]) -> None:
        """Write lines, all or none, and force them to the disk.

        Raises:
          UserError: they cannot be written.
        """
        text = "".join(
            text_files.csv_line((time, pair, action, escape(second)))
            for time, pair, action, second in lines
        )
        left = text.encode("utf-8", "surrogateescape")
        try:
            # Unbuffered: what is left of a failed line must not be written later on.
            with open(self.path, "r+b", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                try:
                    while left:  # A disk takes what it has room for.
                        left = left[file.write(left) :]
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(size)
                    raise
        except OSError as error:
            raise UserError(
                f"This was not saved, because {self.path} cannot be written ({error}): "
                "make room, or put the file back, and do it again."
            ) from error
