"""Labels of other formats, whole numbers or strings, and the option that names them.

A store's argument may end in `?label=KEY`: then the labels are the format's field KEY.
"""

import re
from collections.abc import Sequence
from typing import Any

from sp_jax.errors import UserError


def read_options(argument: str, *known: str) -> tuple[str, dict[str, str]]:
    """Split off a store's options, `?KEY=VALUE&KEY=VALUE` at the end of its argument.

    UserError if there is an option that is not one of the `known`.

    Example:
      >>> read_options("/data/shards?label=class_id", "label")
      ('/data/shards', {'label': 'class_id'})
    """
    place, _, text = argument.partition("?")
    options = dict(part.partition("=")[::2] for part in text.split("&") if part)
    for key, value in options.items():
        if key not in known or not value:
            raise UserError(
                f"{argument!r} has no option {key!r} with a value: known are "
                f"{', '.join(f'?{name}=NAME' for name in known)}, with & between two."
            )
    return place, options


def make_classes(
    values: Sequence[Any], where: str, names: Sequence[str] = ()
) -> tuple[list[str | None], dict[str, str]]:
    """Classes in the order of their numbers, and their names, for `make_meta`.

    Args:
      values: for each image a whole number, a number as text, or a string; None or -1: none.
      where: their origin, for errors.
      names: of the numbers, starting at 0; without them a number is its own name.

    Raises:
      UserError: a value is not one of these, or a number has no name.

    Example:
      >>> make_classes([10, None, 9], "shards")
      (['000000000010', None, '000000000009'], {'000000000010': '10', '000000000009': '9'})
    """
    texts = [None if value in (None, -1) else str(value).strip() for value in values]
    kinds = {type(value).__name__ for value in values} - {"int", "str", "NoneType"}
    if kinds or "" in texts:
        raise UserError(
            f"{where}: a label is {kinds.pop() if kinds else 'empty'}, not a whole number "
            "or a string: name another one with ?label=NAME."
        )
    known = {text for text in texts if text is not None}
    if not all(re.fullmatch(r"\d{1,12}", text) for text in known):
        return texts, {}
    if names and (above := [text for text in known if int(text) >= len(names)]):
        raise UserError(
            f"{where}: the label {above[0]} has no name (the list has {len(names)}): correct "
            "or remove the list of names."
        )
    classes = [None if text is None else f"{int(text):012d}" for text in texts]
    shown = {f"{int(text):012d}": int(text) for text in known}
    return classes, {key: names[n] if names else str(n) for key, n in shown.items()}
