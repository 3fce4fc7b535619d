"""A person's decisions on pairs: kept at once, undone, exported.

Each decision is a line that is appended to a log and forced to the disk before the page goes
on. A crash can tear the last line at most; a torn line is dropped, and `Curation.dropped` has
it. A line that cannot be written, on a full disk, is taken out again, and the decision does not
count. Undoing is a line, too: nothing that was decided is ever rewritten.
"""

import csv
import dataclasses
import os
import pathlib
import time

import numpy as np

from input_pipeline import text_files
from input_pipeline.pairs.table import PairTable, check_table
from input_pipeline.stores import ImageStore
from sp_jax.errors import UserError
from sp_jax.files import write_text

UNDECIDED, ACCEPTED, REJECTED = 0, 1, 2
_ACTIONS = {"accept": ACCEPTED, "reject": REJECTED, "swap": UNDECIDED}
_COLUMNS = ("time", "pair", "action", "second")
# A name with a line end must not make two lines: only the last line can be torn.
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r"})
_NO_DECISION = (ValueError, LookupError, csv.Error)  # What a line that is none raises.


class Curation:
    """The pairs of a table, what was decided on each, and the log of it.

    Attributes:
      table: the pairs as they were given.
      store: their images.
      status: int8 [P]: UNDECIDED, ACCEPTED or REJECTED.
      second: int32 [P]: the second image of each pair, as swapped so far.
      dropped: a torn last line of the log, which was taken out of it; "" without one.
    """

    def __init__(
        self, table: PairTable, store: ImageStore, path: str | os.PathLike[str]
    ) -> None:
        """Open the log at `path`, and repeat what it holds.

        Raises:
          UserError: the log belongs to other pairs, cannot be read or written, or has a
            line that is no decision (with its number).
        """
        check_table(table, store)
        self.table, self.store = table, store
        self.status = np.zeros(len(table), np.int8)
        self.second = np.array(table.second)
        self._done: list[tuple[int, int, int]] = []  # pair, status and second before
        names = [name.translate(_ESCAPES) for name in store.ids]
        self._rows = {name: row for row, name in enumerate(names)}
        self._path = pathlib.Path(path)
        self.dropped = ""
        self._replay()

    def decide(self, pair: int, action: str) -> None:
        """Accept or reject a pair, or swap its second image for another of its class.

        UserError if there is no such pair or action, nothing to swap with, or the log cannot be
        written; then nothing has changed.
        """
        self._check(pair, action)
        second = int(self.second[pair])
        if action == "swap":
            second = self._next_partner(pair)
        self._write(pair, action, self.store.ids[second])
        self._apply(pair, action, second)

    def undo(self) -> int | None:
        """Take back the last decision: its pair, or None without one. Errors as `decide`."""
        if not self._done:
            return None
        self._write(self._done[-1][0], "undo", "")
        return self._take_back()

    def next_undecided(self, after: int = -1) -> int | None:
        """The first pair behind `after` without a decision, then from the start."""
        (open_pairs,) = np.nonzero(self.status == UNDECIDED)
        behind = open_pairs[open_pairs > after]
        found = behind if len(behind) else open_pairs
        return int(found[0]) if len(found) else None

    def accepted(self) -> PairTable:
        """The accepted pairs with their partners as swapped; UserError if there are none."""
        which = self.status == ACCEPTED
        if not which.any():
            raise UserError("No pair has been accepted yet.")
        table = dataclasses.replace(self.table, second=self.second)
        how = f"curated ({which.sum()} of {len(which)} accepted)"
        table = table.take(which, how)
        recipe = {"by": "curated", "digest": table.digest}
        return dataclasses.replace(table, recipe=recipe)

    def class_name(self, label: int) -> str:
        """The name of a class id, as the page shows it."""
        return self.store.class_name(label) or "without a label"

    def _check(self, pair: int, action: str) -> None:
        if not 0 <= pair < len(self.table):
            raise UserError(f"There is no pair {pair} of {len(self.table)}.")
        if action not in _ACTIONS:
            raise UserError(f"There is no action {action!r}.")

    def _next_partner(self, pair: int) -> int:
        """The next image of the class that no pair uses, behind the present one."""
        label = self.store.labels[self.table.first[pair]]
        if label < 0:
            raise UserError("This image has no label, so there is no class to swap in.")
        first, standing = self.table.first, self.status != REJECTED
        used = {*first[standing], *self.second[standing], first[pair]}
        free = [i for i in np.flatnonzero(self.store.labels == label) if i not in used]
        if not free:
            raise UserError(
                f"Every image of {self.store.class_names[label]!r} is in a pair: reject "
                "this one, or another whose image you want."
            )
        behind = [i for i in free if i > self.second[pair]]
        return int((behind or free)[0])

    def _apply(self, pair: int, action: str, second: int) -> None:
        self._done.append((pair, int(self.status[pair]), int(self.second[pair])))
        self.second[pair] = second
        self.status[pair] = _ACTIONS[action]

    def _take_back(self) -> int:
        pair, self.status[pair], self.second[pair] = self._done.pop()
        return pair

    def _write(self, pair: int, action: str, second: str) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%S")
        line = text_files.csv_line((now, pair, action, second.translate(_ESCAPES)))
        line = line.encode("utf-8", "surrogateescape")
        try:
            # Unbuffered: what is left of a failed line must not be written later on.
            with open(self._path, "r+b", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                try:
                    while line:  # A disk takes what it has room for.
                        line = line[file.write(line) :]
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(size)
                    raise
        except OSError as error:
            raise UserError(
                f"This was not kept, because {self._path} cannot be written ({error}): "
                "make room, or put the file back, and do it again."
            ) from error

    def _replay(self) -> None:
        head = f"# decisions on the pairs {self.table.digest}\n{','.join(_COLUMNS)}\n"
        try:
            if not self._path.exists():
                write_text(self._path, head)
            content = self._path.read_bytes()
            end = content.rfind(b"\n") + 1
            self._repeat(content[:end].decode("utf-8-sig", "surrogateescape"), head)
            torn = content[end:].decode("utf-8", "surrogateescape")
            try:
                if torn:
                    self._repeat_line(torn, torn=True)
            except _NO_DECISION:
                self.dropped = torn
                os.truncate(self._path, end)
            else:  # An editor may have left the last line end out.
                with open(self._path, "ab") as file:
                    file.write(b"\n" if torn else b"")
        except OSError as error:
            raise UserError(
                f"Cannot keep decisions in {self._path} ({error}): make room, or copy the "
                "pairs into a folder that can be written."
            ) from error

    def _repeat(self, text: str, head: str) -> None:
        # Not splitlines(): names hold more line ends than a log does.
        lines = text.split("\n")[:-1]
        # Spreadsheet programs pad the first line with commas, and change line ends.
        begin = [line.rstrip(",\r").strip('"') for line in lines[:2]]
        if begin != head.splitlines():
            raise UserError(
                f"{self._path} holds decisions on other pairs, or another program has "
                "changed its first two lines: move it away, or open the table that it "
                "belongs to."
            )
        for number, line in enumerate(lines[2:], 3):
            try:
                self._repeat_line(line)
            except _NO_DECISION as error:
                raise UserError(
                    f"{self._path}, line {number}: {line!r} is no decision on these pairs "
                    f"({error}): correct or remove the line."
                ) from error

    def _repeat_line(self, line: str, torn: bool = False) -> None:
        ((_, pair, action, second),) = csv.reader([line], strict=True)
        pair = int(pair)
        if action == "undo":
            if not self._done or self._done[-1][0] != pair:
                raise ValueError("it was not decided just before")
            self._take_back()
            return
        self._check(pair, action)
        # Only of a swap the name is news, and a part of a name may be a name.
        if action == "swap" and torn:
            raise ValueError("the name may be cut off")
        if action != "swap" and self._rows[second] != self.second[pair]:
            raise ValueError("the pair had another second image")
        self._apply(pair, action, self._rows[second])
