"""The recipe of a table of pairs: how it was made, without seed, place and rows.

A recipe is plain JSON, complete, and the same for tables that differ in their seed only:

    {"by": "labels", "rounds": 2}                        each image with its next on a circle
    {"by": "labels", "pairs_per_class": 50, "classes": DIGEST or null}
    {"by": "images"}                                     each image with itself
    {"by": "folders"}                                    the two images of each folder
    {"by": "classes", "classes": DIGEST, "of": RECIPE}   the pairs of some classes
    {"by": "first pairs", "pairs_per_class": 50, "of": RECIPE}
    {"by": "augmented", "match": "first", "of": RECIPE}
    {"by": "mixed", "semantic_fraction": 0.5, "of": RECIPE}
    {"by": "mined", "neighbours": 5, …, "encoder": …}
    {"by": "curated" or "file", "digest": DIGEST}        known by the pairs alone
    {"by": "source", "source": TEXT}                     from labels, before there were recipes
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

Recipe = Mapping[str, Any]

_EDITED = "edited by hand: "
_DRAWN = re.compile(r"semantic pairs, rounds=(\d+), seed=\d+(; \d+ images alone .*)?")
# What ends the sources of tables from labels, before there were recipes.
_LABELS = re.compile(
    r"(.*: )?(semantic pairs, rounds=\d+|(\d+ )?pairs a class, \d+ classes), seed=\d+(;.*)?"
)


def digest_names(names: Iterable[str]) -> str:
    """SHA-256 hex over names, in any order."""
    return digest_json(sorted(names))


def digest_json(value: Any) -> str:
    """SHA-256 hex over a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read_origin(header: Mapping[str, str], digest: str) -> tuple[str, Recipe]:
    """Source and recipe of a table from the comment lines of its file.

    The recipe is believed if the pairs are still those that it was written with.

    Args:
      header: the lines: source, recipe, digest.
      digest: of the pairs as they are.
    """
    source, unknown = header["source"], {"by": "file", "digest": digest}
    if "digest" not in header:
        return source, _recipe_of_before(source) or unknown
    if header["digest"] != digest:
        return _EDITED + source.removeprefix(_EDITED), unknown
    try:
        recipe = json.loads(header.get("recipe", ""))
    except ValueError:  # A spreadsheet program takes its commas for its own.
        recipe = None
    return source, recipe if isinstance(recipe, dict) and "by" in recipe else unknown


def _recipe_of_before(source: str) -> Recipe | None:
    """The recipe that a source describes; None if the table depends on more than that."""
    if drawn := _DRAWN.fullmatch(source):
        return {"by": "labels", "rounds": int(drawn[1])}
    if source == "each image with itself":
        return {"by": "images"}
    if "curated (" not in source and _LABELS.fullmatch(source):
        return {"by": "source", "source": re.sub(r", seed=\d+", "", source)}
    return None
