"""Decisions on pairs: saved at once, undone, and replayed when the page is opened again.

Undoing is a line in the file of decisions, too: no decision is ever rewritten.
"""

import csv
import dataclasses
import os
from typing import NamedTuple

import numpy as np

from input_pipeline.curation import log
from input_pipeline.pairs.table import PairTable, check_table
from input_pipeline.stores import ImageStore
from sp_jax.errors import UserError

UNDECIDED, ACCEPTED, REJECTED = 0, 1, 2
_ACTIONS = {"accept": ACCEPTED, "reject": REJECTED, "swap": UNDECIDED}
_NO_DECISION = (ValueError, LookupError, csv.Error)  # Raised by a wrong line.


class State(NamedTuple):
    """The decision on each pair of a table.

    Attributes:
      status: int8 [P]: UNDECIDED, ACCEPTED or REJECTED.
      second: int32 [P]: the second image of each pair, as swapped so far.
      when: the time of the last decision on each pair; "" without one.
      by: who made it; "" if unknown.
    """

    status: np.ndarray
    second: np.ndarray
    when: list[str]
    by: list[str]

    def at(self, pair: int) -> tuple[int, int, str, str]:
        """The values of one pair."""
        return tuple(column[pair] for column in self)

    def set(self, pair: int, values: tuple[int, int, str, str]) -> None:
        """Change the values of one pair."""
        for column, value in zip(self, values, strict=True):
            column[pair] = value


class Curation:
    """The pairs of a table, the decisions on them, and the file of these.

    Attributes:
      table: the pairs as they were given.
      store: their images.
      person: who decides; "" if unknown.
      making: the table pairs each image with itself, and a person chooses partners.
      state: the decisions.
      dropped: a torn last line of the file, which was removed; "" without one.
    """

    def __init__(
        self,
        table: PairTable,
        store: ImageStore,
        path: str | os.PathLike[str],
        *,
        person: str = "",
        making: bool = False,
        groups: np.ndarray | None = None,
        max_uses: int = 1,
        given: State | None = None,
        given_by: str = "",
        only_read: bool = False,
    ) -> None:
        """Open the file at `path`, and replay its decisions.

        Args:
          table: the pairs.
          store: their images.
          path: of the file.
          person: who decides.
          making: see `Curation`.
          groups: int [N], partners share a group; -1: no group. Default: the labels.
          max_uses: pairs that an image may be in when it becomes a new partner.
          given: decisions from before the file began.
          given_by: who made these; the file belongs to these people.
          only_read: leave the file unchanged: it is another person's.

        Raises:
          UserError: the file belongs to other pairs, cannot be read or written, or has a
            line that is not a decision (with its number).
        """
        check_table(table, store)
        self.table, self.store, self.person, self.path = table, store, person, path
        self.making, self.max_uses = making, max_uses
        self.groups = store.labels if groups is None else groups
        self._given = given is not None
        blank = [""] * len(table)
        self.state = given or State(
            np.zeros(len(table), np.int8), np.array(table.second), blank, blank[:]
        )
        # Groups that are undone together, of pairs and their values before.
        self._done: list[list[tuple[int, tuple[int, int, str, str]]]] = []
        self._time = ""  # Of the last group.
        self._rows = {log.escape(name): row for row, name in enumerate(store.ids)}
        belongs = f"{table.digest} by {given_by}" if given_by else table.digest
        self._log = log.Log(path, belongs)
        self.dropped = ""
        self._replay(only_read)

    def decide(self, *decisions: tuple[int, str] | tuple[int, str, int]) -> None:
        """Save decisions that are undone together, such as those of a sheet.

        Each is a pair, an action ("accept", "reject" or "swap") and for a swap the new second
        image. UserError if there is no such pair, action or partner, or the file cannot be
        written; then nothing has changed.
        """
        time, lines = log.now(), []
        try:
            for pair, action, *new in decisions:
                self._check(pair, action)
                if action == "swap":
                    self._check_partner(pair, *new)
                second = new[0] if action == "swap" else int(self.state.second[pair])
                if action != "reject":
                    self._check_free(pair, second)
                self._apply(time, pair, action, second)
                lines.append((time, pair, action, self.store.ids[second]))
            self._log.append(lines)
        except UserError:
            for _ in lines:
                self._take_back()
            raise

    def undo(self) -> dict[int, int]:
        """Take back the last decisions: returns their pairs, with the status that they had.

        {} without a decision. Errors are those of `decide`.
        """
        if not self._done:
            return {}
        pairs = [pair for pair, _ in self._done[-1]]
        had = {pair: int(self.state.status[pair]) for pair in pairs}
        time = log.now()
        self._log.append((time, pair, "undo", "") for pair in reversed(pairs))
        for _ in pairs:
            self._take_back()
        return had

    def partners(self, pair: int) -> np.ndarray:
        """The images that may become the second of a pair, of its group and free: bool [N]."""
        first = int(self.table.first[pair])
        if self.groups[first] < 0:
            raise UserError("This image has no label, so there is no class to swap in.")
        free = self.uses(pair) < self.max_uses
        free[[first, self.state.second[pair]]] = False
        stand = self._standing(pair)  # No pair is made twice, in either order.
        one, other = self.table.first[stand], self.state.second[stand]
        free[np.concatenate([one[other == first], other[one == first]])] = False
        return free & (self.groups == self.groups[first])

    def uses(self, but: int | None = None) -> np.ndarray:
        """The number of pairs that each image is in, int [N]; one pair may be left out.

        Rejected pairs do not count; where pairs are made, only accepted ones do.
        """
        stand = self._standing(but)
        rows = np.concatenate([self.table.first[stand], self.state.second[stand]])
        return np.bincount(rows, minlength=len(self.store))

    def accepted(self) -> tuple[PairTable, dict[str, list[str]]]:
        """The accepted pairs with their chosen partners, and who decided, and when.

        UserError if there are none.
        """
        state = self.state
        (which,) = np.nonzero(state.status == ACCEPTED)
        if not len(which):
            raise UserError("No pair has been accepted yet.")
        table = dataclasses.replace(self.table, second=state.second)
        how = f"curated ({len(which)} of {len(state.status)} accepted)"
        table = table.take(which, how)
        recipe = {"by": "curated", "digest": table.digest}
        columns = {
            name: [column[pair] for pair in which]
            for name, column in (("by", state.by), ("time", state.when))
        }
        return dataclasses.replace(table, recipe=recipe), columns

    def class_name(self, label: int) -> str:
        """The name of a class id, as the page shows it."""
        return self.store.class_name(label) or "without a label"

    def _check(self, pair: int, action: str) -> None:
        if not 0 <= pair < len(self.table):
            raise UserError(f"There is no pair {pair} of {len(self.table)}.")
        if action not in _ACTIONS:
            raise UserError(f"There is no action {action!r}.")

    def _check_partner(self, pair: int, second: int | None = None) -> None:
        rows = range(len(self.store))
        if second not in rows or not self.partners(pair)[second]:
            raise UserError(
                "This image cannot be the partner: it is in another pair, or of another "
                "class. Choose another one."
            )

    def _check_free(self, pair: int, second: int) -> None:
        first = int(self.table.first[pair])
        if self.making and second == first:
            raise UserError("This image has no partner yet: choose one.")
        # While the pair was rejected or not made, its images may have come into others.
        given, now = self.table.second, self.state.second
        chosen = {*now[self._standing(pair) & (now != given)]}
        for row in {first, second} & chosen | {second} - {int(given[pair])}:
            if self.uses(pair)[row] >= self.max_uses:
                raise UserError(
                    f"{self.store.ids[row]} is now in another pair: undo that one first."
                )

    def _standing(self, but: int | None) -> np.ndarray:
        status = self.state.status
        stand = status == ACCEPTED if self.making else status != REJECTED
        if but is not None:
            stand[but] = False
        return stand

    def _apply(self, time: str, pair: int, action: str, second: int) -> None:
        # Before there were sheets, times had no fraction, and two may be the same.
        if not (self._done and time == self._time and "." in time):
            self._done.append([])
        self._time = time
        self._done[-1].append((pair, self.state.at(pair)))
        self.state.set(pair, (_ACTIONS[action], second, time, self.person))

    def _take_back(self) -> None:
        self.state.set(*self._done[-1].pop())
        if not self._done[-1]:
            self._done.pop()

    def _replay(self, only_read: bool) -> None:
        try:
            if not only_read:
                self._log.begin()
            lines, torn = self._log.read()
            for number, line in lines:
                try:
                    self._repeat(line)
                except _NO_DECISION as error:
                    raise UserError(
                        f"{self._log.path}, line {number}: {line!r} is not a decision on "
                        f"these pairs ({error}): correct or remove the line."
                    ) from error
            if torn:
                try:
                    self._repeat(torn, torn=True)
                except _NO_DECISION:
                    self.dropped = torn
                if not only_read:
                    self._log.mend(drop=bool(self.dropped))
        except OSError as error:
            raise UserError(
                f"Cannot save decisions in {self._log.path} ({error}): make room, or copy "
                "the pairs into a folder that can be written."
            ) from error

    def _repeat(self, line: str, torn: bool = False) -> None:
        time, pair, action, second = log.split(line)
        pair = int(pair)
        if action == "undo":
            if not self._done or self._done[-1][-1][0] != pair:
                raise ValueError("it was not the last decision")
            self._take_back()
            return
        self._check(pair, action)
        # Only a swap needs the name, and a part of a name may be another name.
        if action == "swap" and torn:
            raise ValueError("the name may be cut off")
        row = self._rows[second]
        if action != "swap" and not self._given and row != self.state.second[pair]:
            raise ValueError("the pair had another second image")
        self._apply(time, pair, action, row)
