"""Decisions on pairs: kept at once, undone, repeated when the page is opened again.

Undoing is a line in the file of decisions, too: nothing that was decided is ever rewritten.
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
_NO_DECISION = (ValueError, LookupError, csv.Error)  # What a line that is none raises.


class State(NamedTuple):
    """What was decided on each pair of a table.

    Attributes:
      status: int8 [P]: UNDECIDED, ACCEPTED or REJECTED.
      second: int32 [P]: the second image of each pair, as swapped so far.
      when: the time of the last decision on each pair; "" without one.
      by: whose it is; "" if that was not said.
    """

    status: np.ndarray
    second: np.ndarray
    when: list[str]
    by: list[str]

    def at(self, pair: int) -> tuple[int, int, str, str]:
        """The values of one pair."""
        return tuple(column[pair] for column in self)

    def set(self, pair: int, values: tuple[int, int, str, str]) -> None:
        """Change those of one pair."""
        for column, value in zip(self, values, strict=True):
            column[pair] = value


class Curation:
    """The pairs of a table, what was decided on each, and the file of it.

    Attributes:
      table: the pairs as they were given.
      store: their images.
      person: who decides; "" if that was not said.
      making: the table holds each image with itself, and a person gives them partners.
      state: what was decided.
      dropped: a torn last line of the file, which was taken out of it; "" without one.
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
        """Open the file at `path`, and repeat what it holds.

        Args:
          table: the pairs.
          store: their images.
          path: of the file.
          person: who decides.
          making: see `Curation`.
          groups: int [N], images of which are partners; -1: of none. Default: the labels.
          max_uses: pairs in which an image may stand by a new partner.
          given: what was decided before the file began.
          given_by: whose decisions these are; the file belongs to them alone.
          only_read: leave the file as it is: another person's.

        Raises:
          UserError: the file belongs to other pairs, cannot be read or written, or has a
            line that is no decision (with its number).
        """
        check_table(table, store)
        self.table, self.store, self.person = table, store, person
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
        """Keep decisions that are undone together, such as those of a sheet.

        Each is a pair, an action ("accept", "reject" or "swap") and of a swap the new second
        image. UserError if there is no such pair, action or partner, or the file cannot be
        written; then nothing has changed.
        """
        seconds: dict[int, int] = {}
        steps = []
        for pair, action, *new in decisions:
            self._check(pair, action)
            if action == "swap":
                self._check_partner(pair, *new)
                seconds[pair] = new[0]
            second = seconds.get(pair, int(self.state.second[pair]))
            if self.making and action == "accept" and second == self.table.first[pair]:
                raise UserError("This image has no partner yet: choose one.")
            steps.append((pair, action, second))
        time, ids = log.now(), self.store.ids
        self._log.append((time, pair, action, ids[row]) for pair, action, row in steps)
        for step in steps:
            self._apply(time, *step)

    def undo(self) -> dict[int, int]:
        """Take back what was decided last: its pairs, with the status that they had.

        Nothing without a decision. Errors as those of `decide`.
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
        """Which images may be another second of a pair: of its group and free, bool [N]."""
        first = int(self.table.first[pair])
        if self.groups[first] < 0:
            raise UserError("This image has no label, so there is no class to swap in.")
        free = self.uses(pair) < self.max_uses
        free[[first, self.state.second[pair]]] = False
        return free & (self.groups == self.groups[first])

    def uses(self, but: int | None = None) -> np.ndarray:
        """In how many pairs each image stands, int [N]; one pair may be left out.

        Those that are not rejected; where pairs are made, those that are.
        """
        status = self.state.status
        stand = status == ACCEPTED if self.making else status != REJECTED
        if but is not None:
            stand[but] = False
        rows = np.concatenate([self.table.first[stand], self.state.second[stand]])
        return np.bincount(rows, minlength=len(self.store))

    def accepted(self) -> tuple[PairTable, dict[str, list[str]]]:
        """The accepted pairs with their partners as swapped, and who decided, and when.

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
                        f"{self._log.path}, line {number}: {line!r} is no decision on "
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
                f"Cannot keep decisions in {self._log.path} ({error}): make room, or copy "
                "the pairs into a folder that can be written."
            ) from error

    def _repeat(self, line: str, torn: bool = False) -> None:
        time, pair, action, second = log.split(line)
        pair = int(pair)
        if action == "undo":
            if not self._done or self._done[-1][-1][0] != pair:
                raise ValueError("it was not decided just before")
            self._take_back()
            return
        self._check(pair, action)
        # Only of a swap the name is news, and a part of a name may be a name.
        if action == "swap" and torn:
            raise ValueError("the name may be cut off")
        row = self._rows[second]
        if action != "swap" and not self._given and row != self.state.second[pair]:
            raise ValueError("the pair had another second image")
        self._apply(time, pair, action, row)
