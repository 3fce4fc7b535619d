"""What the page gets to show of pairs, as plain JSON."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline.curation import marks
from input_pipeline.curation.decisions import Curation
from input_pipeline.curation.likeness import Likeness
from input_pipeline.curation.merging import WORDS
from input_pipeline.curation.order import Order
from input_pipeline.pairs import summary

_KEPT = 4096  # Pairs of images whose marks are kept.


class Views:
    """Sheets of pairs, and partners to choose from."""

    def __init__(
        self,
        curation: Curation,
        order: Order,
        likeness: Likeness,
        opinions: Mapping[int, str],
        suspects: np.ndarray | None,
    ) -> None:
        """Keep what they are made of.

        Args:
          curation: the pairs and what was decided.
          order: of the pairs.
          likeness: of the images.
          opinions: what several people say of a pair, in words.
          suspects: see `marks.suspects`.
        """
        self._curation, self._order = curation, order
        self._likeness, self._opinions, self._suspects = likeness, opinions, suspects
        # Browsers keep pictures: those of another store must have another address.
        self.store = curation.store.fingerprint[:12]
        self._marks = functools.lru_cache(maxsize=_KEPT)(self._find_marks)

    def rows(self, pair: int) -> list[int]:
        """The images of a pair; one, where it has no partner yet."""
        curation = self._curation
        rows = [int(curation.table.first[pair]), int(curation.state.second[pair])]
        return rows[:1] if curation.making and rows[0] == rows[1] else rows

    def status(self, pair: int) -> str:
        """What was decided on a pair, in a word."""
        return WORDS[self._curation.state.status[pair]]

    def sheet(
        self, pairs: Sequence[int], had: Mapping[int, int] | None = None
    ) -> dict[str, Any]:
        """Pairs of one class, and how far it is.

        None: nothing is to decide, and the last pair is shown with a sentence. Of pairs that
        were just undone, the page shows which status they had.
        """
        finished = "" if pairs else self._order.end()
        pairs = pairs or [self._order.last()]
        curation, counts = self._curation, self._order.counts(pairs[0])
        asked = self._order.asked(pairs)
        return counts | {
            "store": self.store,
            "finished": finished,
            "label": curation.class_name(curation.table.label[pairs[0]]),
            "pairs": [
                self._pair(pair, (had or {}).get(pair)) | {"asked": pair in asked}
                for pair in pairs
            ],
        }

    def partners(self, pair: int, allowed: np.ndarray, count: int) -> list[dict]:
        """Images to choose a partner of a pair from, the most alike first."""
        first = int(self._curation.table.first[pair])
        rows = self._likeness.nearest(first, allowed, count)
        return [
            self._image(row) | {"marks": self._marks(first, row)}
            for row in rows.tolist()
        ]

    def _pair(self, pair: int, had: int | None) -> dict[str, Any]:
        rows = self.rows(pair)
        found = [self._opinions[pair]] if pair in self._opinions else []
        return {
            "pair": pair,
            "place": int(self._order.place[pair]),
            "status": self.status(pair),
            "had": WORDS[had] if had else None,
            "images": [self._image(row) for row in rows],
            "marks": found + (self._marks(*rows) if len(rows) == 2 else []),
        }

    def _image(self, row: int) -> dict[str, Any]:
        name = self._curation.store.ids[row]
        return {"row": row, "url": f"/image/{self.store}/{row}", "name": name}

    def _find_marks(self, first: int, second: int) -> list[str]:
        """What may be wrong with two images as a pair, in words."""
        store, both = self._curation.store, np.array([first, second])
        found = []
        if first == second:
            return found
        if summary.near_duplicates(store, both[:1], both[1:])[0]:
            found.append("near-duplicate")
        elif marks.same_source(store, first, second) > marks.SAME_SOURCE:
            found.append("same source")
        labels = store.labels[both]
        if min(labels) >= 0 and labels[0] != labels[1]:
            found.append(f"other class: {self._curation.class_name(labels[1])}")
        if self._suspects is not None:
            classes = sorted({*self._suspects[both].tolist()} - {-1})
            if classes:
                names = " / ".join(map(self._curation.class_name, classes))
                found.append(f"looks like {names}")
        return found
