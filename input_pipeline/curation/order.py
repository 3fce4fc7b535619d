"""The order in which pairs are shown, and the progress of their classes."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from input_pipeline.curation.decisions import ACCEPTED, REJECTED, UNDECIDED, Curation

_LISTED = 200  # Classes at most: all may be too many to send and draw.


class Order:
    """The pairs class by class, and which of them come next.

    Attributes:
      pairs: int [P], in the order in which they are shown.
      place: int [P], where each pair is in it.
    """

    def __init__(
        self,
        curation: Curation,
        *,
        score: np.ndarray | None = None,
        wanted: int | None = None,
        only: Collection[int] | None = None,
    ) -> None:
        """Sort the pairs.

        Args:
          curation: the pairs and what was decided.
          score: float [P], the best pair of a class comes first; without it as in the table.
          wanted: accepted pairs per class; a class that has them is done.
          only: pairs to decide; all of them by default.
        """
        self._curation, self._wanted = curation, wanted
        classes, first, self._class = np.unique(
            curation.table.label, return_index=True, return_inverse=True
        )
        # Classes are numbered as they come in the table.
        number = np.argsort(np.argsort(first))
        self._class = number[self._class]
        self._names = [curation.class_name(c) for c in classes[np.argsort(first)]]
        falling = np.zeros(len(self._class)) if score is None else -score
        self.pairs = np.lexsort((falling, self._class))
        self.place = np.argsort(self.pairs)
        self._asked = np.ones(len(self._class), bool)
        if only is not None:
            self._asked[:] = False
            self._asked[list(only)] = True

    def next(
        self, count: int, after: int = -1, without: Sequence[int] = ()
    ) -> list[int]:
        """Up to `count` pairs of one class that have to be decided.

        Those after a place in the order, then from its start; none when all are decided.
        `without` are pairs that are on the page; they count as accepted.
        """
        without = np.asarray(without, int)
        accepted = self._accepted() + self._count(without)
        to_ask = self._to_ask(accepted)
        to_ask[without] = False
        places = np.flatnonzero(to_ask[self.pairs])
        behind = places[places > after]
        found = self.pairs[behind if len(behind) else places]
        if not len(found):
            return []
        label = self._class[found[0]]
        if self._wanted:
            count = min(count, self._wanted - accepted[label])
        return found[self._class[found] == label][:count].tolist()

    def around(self, place: int, count: int, back: bool = False) -> list[int]:
        """Up to `count` pairs of one class, decided or not, starting or ending at a place."""
        place = min(max(place, 0), len(self.pairs) - 1)
        of = self._class[self.pairs]
        start, end = np.searchsorted(of, [of[place], of[place] + 1])
        if back:
            return self.pairs[max(start, place + 1 - count) : place + 1].tolist()
        return self.pairs[place : min(end, place + count)].tolist()

    def asked(self, pairs: Sequence[int]) -> set[int]:
        """Those pairs, all of one class, that have to be decided, at most as many as wanted."""
        accepted = self._accepted()
        to_ask = self._to_ask(accepted)
        found = [pair for pair in pairs if to_ask[pair]]
        if self._wanted and found:
            found = found[: self._wanted - accepted[self._class[found[0]]]]
        return set(found)

    def last(self) -> int:
        """The last of all pairs that the person is asked to decide."""
        asked = self.pairs[self._asked[self.pairs]]
        return int(asked[-1] if len(asked) else self.pairs[-1])

    def end(self) -> str:
        """A sentence to show when there is nothing left to decide."""
        status = self._curation.state.status
        left = int((status == UNDECIDED).sum())
        if self._curation.making:
            return "Every image has a partner, or none: export."
        if not self._asked.all():
            settled = int((status[self._asked] != UNDECIDED).sum())
            return f"{settled:,} settled, {left:,} undecided by all: export."
        if left and self._wanted:
            return (
                f"Each class has {self._wanted:,} pairs, or no more to decide; "
                f"undecided: {left:,}. Export."
            )
        return "Every pair is decided: export."

    def class_start(self, number: int) -> int:
        """The place at which a class begins."""
        return int(np.searchsorted(self._class[self.pairs], number))

    def counts(self, pair: int) -> dict[str, Any]:
        """The progress of a pair's class, and of all pairs."""
        status = self._curation.state.status
        return {
            "of_class": self._progress([self._class[pair]])[0],
            "decided": int((status != UNDECIDED).sum()),
            "accepted": int((status == ACCEPTED).sum()),
        }

    def classes(self, around: int, search: str, short: bool) -> dict[str, Any]:
        """The progress of classes whose names contain a word: up to 200 near one of them.

        With `short` only classes that lack accepted pairs or, if no number is wanted, that
        have pairs left to decide.
        """
        accepted = self._accepted()
        lacks = self._count(self._to_ask(accepted)) > 0
        if self._wanted:
            lacks = accepted < self._wanted
        word = search.casefold()
        chosen = [
            i
            for i, name in enumerate(self._names)
            if word in name.casefold() and (lacks[i] or not short)
        ]
        before = max(np.searchsorted(chosen, around) - _LISTED // 2, 0)
        shown = chosen[before : before + _LISTED]
        return {
            "lacking": int(lacks.sum()),
            "before": int(before),
            "behind": len(chosen) - int(before) - len(shown),
            "classes": self._progress(shown),
        }

    def _progress(self, classes: Sequence[int]) -> list[dict[str, Any]]:
        """The accepted, the possible and all pairs of some classes."""
        curation = self._curation
        total = self._count(np.ones(len(self._class), bool))
        rejected = self._count(curation.state.status == REJECTED)
        if curation.making:  # Of images, of which none is lost.
            total, rejected = total * curation.max_uses // 2, rejected * 0
        accepted = self._accepted()
        return [
            {
                "class": int(i),
                "name": self._names[i],
                "accepted": int(accepted[i]),
                "possible": int(total[i] - rejected[i]),
                "total": int(total[i]),
            }
            for i in classes
        ]

    def _count(self, which: np.ndarray) -> np.ndarray:
        """The number of the given pairs in each class."""
        return np.bincount(self._class[which], minlength=len(self._names))

    def _accepted(self) -> np.ndarray:
        """Accepted pairs of each class."""
        return self._count(self._curation.state.status == ACCEPTED)

    def _to_ask(self, accepted: np.ndarray) -> np.ndarray:
        """Which pairs have to be decided, bool [P], given the accepted pairs of each class."""
        curation = self._curation
        asked = self._asked & (curation.state.status == UNDECIDED)
        if self._wanted:
            asked &= (accepted < self._wanted)[self._class]
        if curation.making:  # An image that is a partner already needs no partner.
            free = curation.uses()[curation.table.first] < curation.max_uses
            _, group = np.unique(
                curation.groups[curation.table.first], return_inverse=True
            )
            # The last image of a group is left over: no rejected image fitted it.
            fits = free & (curation.state.status != REJECTED)
            asked &= free & (np.bincount(group, fits)[group] > 1)
        return asked
