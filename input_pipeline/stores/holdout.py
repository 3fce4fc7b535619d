"""Hold out a share of each class, in stores without a split for tests.

`all:holdout` is a tenth of each class of the split `all`, and `all:rest` the other images;
`train:holdout=0.3` and `train:rest=0.3` share out another split in other parts, and
`all:rest:holdout` is a part of a part. Who is held out is fixed by the images' names: it is
the same in every program, and on every machine.
"""

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from sp_jax.errors import UserError

SHARE = 0.1
_FORM = re.compile(r"(?P<split>.*):(?P<part>holdout|rest)(=(?P<share>[^=]*))?")


def read(split: str) -> tuple[str, str, float]:
    """A split's name without its part, the part ("holdout", "rest" or ""), and the share.

    Raises:
      UserError: the share is not between 0 and 1.

    Example:
      >>> read("train:rest=0.3")
      ('train', 'rest', 0.3)
    """
    found = _FORM.fullmatch(split)
    if not found:
        return split, "", 0.0
    try:
        share = SHARE if found["share"] is None else float(found["share"])
    except ValueError:
        share = np.nan
    if not 0 < share < 1:
        raise UserError(
            f"There is no split {split!r}: give the share to hold out as a number between "
            f"0 and 1, as in {found['split']}:{found['part']}={SHARE:g}."
        )
    return found["split"], found["part"], share


def whole(split: str) -> str:
    """The split in a name, without its parts."""
    name, part, _ = read(split)
    return whole(name) if part else name


def rows_of(
    part: str, share: float, labels: np.ndarray, ids: Sequence[str]
) -> np.ndarray:
    """The rows of a part, in rising order.

    The images of each class are sorted by the SHA-256 of their names, and the first ones are
    held out: the share, rounded, but at least one, and not all. A class of one or two images
    keeps them; the unlabelled images form a class.

    Args:
      part: "holdout" or "rest".
      share: of each class, between 0 and 1.
      labels: int [N].
      ids: the names of the N images.
    """
    digests = [hashlib.sha256(i.encode("utf-8", "surrogateescape")) for i in ids]
    order = np.argsort([digest.hexdigest() for digest in digests], kind="stable")
    held = np.zeros(len(ids), bool)
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        if len(rows) > 2:
            count = min(len(rows) - 1, max(1, round(share * len(rows))))
            held[rows[:count]] = True
    return np.flatnonzero(held if part == "holdout" else ~held)
