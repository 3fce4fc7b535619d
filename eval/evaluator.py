"""An evaluator: how it measures, and which of its numbers matter."""

import hashlib
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from input_pipeline.stores import ImageStore

if TYPE_CHECKING:  # Reading results needs no jax.
    from sp_jax.features import Extractor


class Number(NamedTuple):
    """A number of a result that shows how good features are.

    Attributes:
      name: its key in the result.
      better: "higher", "lower" or "neither".
      percent: whether it is a share, which may be shown times 100.
      chance: its value for features without information; None if unknown.
    """

    name: str
    better: str = "higher"
    percent: bool = False
    chance: float | None = None


class Evaluator(NamedTuple):
    """A measurement that is ready; call it with an `Extractor` and the training step.

    Attributes:
      protocol: how it measures, in one line to print beside the numbers. It tells of every
        option that can change them, but for the images, whose fingerprints do.
      measure: (extractor, step) -> name -> number.
      headline: the numbers that tables show, the most important one first.
      stores: the images that it reads.
      kind: its name, or its import path; `eval.make` fills it in.
      options: all of them; `eval.make` fills them in.
    """

    protocol: str
    measure: Callable[["Extractor", int], dict[str, float]]
    headline: tuple[Number, ...]
    stores: tuple[ImageStore, ...]
    kind: str | None = None
    options: Mapping[str, Any] = types.MappingProxyType({})

    def __call__(self, extractor: "Extractor", step: int) -> dict[str, float]:
        """The numbers of a network; `UserError` if it does not fit the options."""
        return self.measure(extractor, step)

    def fingerprints(self) -> dict[str, str]:
        """Each split that is read, and SHA-256 hex over its pixels, labels and attributes."""
        found = {}
        for store in self.stores:
            # The store's covers pixels, labels and ids: tables of pairs rely on it.
            whole = hashlib.sha256(store.fingerprint.encode())
            for name, values in sorted(store.attributes.items()):
                whole.update(f"\0{name}\0".encode())
                whole.update(np.ascontiguousarray(values, "<i4").tobytes())
            found[f"{store.name} {store.split}"] = whole.hexdigest()
        return found
