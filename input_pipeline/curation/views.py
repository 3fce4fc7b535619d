"""The data on pairs that the page shows, as plain JSON."""

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
from input_pipeline.pairs.origin import digest_json

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
        """Keep the sources.

        Args:
          curation: the pairs and their decisions.
          order: of the pairs.
          likeness: of the images.
          opinions: what several people say about a pair, in words.
          suspects: see `marks.suspects`.
        """
        self._curation, self._order = curation, order
        self._likeness, self._opinions, self._suspects = likeness, opinions, suspects
        # Of a page, and in the addresses of its pictures, which browsers keep. A page of
        # other images, or of another person's decisions, is not of this program.
        decisions = curation.person, str(curation.path.resolve())
        self.store = digest_json([curation.store.fingerprint, *decisions])[:12]
        self._marks = functools.lru_cache(maxsize=_KEPT)(self._find_marks)

    def rows(self, pair: int) -> list[int]:
        """The images of a pair; only one if it has no partner yet."""
        curation = self._curation
        rows = [int(curation.table.first[pair]), int(curation.state.second[pair])]
        return rows[:1] if curation.making and rows[0] == rows[1] else rows

    def status(self, pair: int) -> str:
        """The decision on a pair, in a word."""
        return WORDS[self._curation.state.status[pair]]

    def sheet(
        self, pairs: Sequence[int], had: Mapping[int, int] | None = None
    ) -> dict[str, Any]:
        """Pairs of one class, and the progress of the class.

        Without pairs nothing is left to decide, and the last pair is shown with a sentence.
        `had` is the status that pairs had before they were undone.
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
        """Images to choose a pair's partner from, the most similar first."""
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
