"""A module of ours by its short name, or anybody's by its import path."""

import difflib
import importlib
from collections.abc import Sequence
from types import ModuleType

from sp_jax.errors import UserError


def find(kind: str, name: str, package: str, known: Sequence[str]) -> ModuleType:
    """Import a module.

    Args:
        kind: what it is, for the error, such as "evaluator".
        name: one of `known`, or an import path with a dot, such as "mypackage.myeval".
        package: where the known ones are.
        known: their names.

    Raises:
        UserError: there is no such module.
    """
    if name in known:
        return importlib.import_module(f"{package}.{name}")
    near = difflib.get_close_matches(name, known, 1)
    others = [one for one in known if one not in near]
    sentence = (
        f"Unknown {kind} {name!r}: choose one of {', '.join([*near, *others])}, or an "
        "import path such as mypackage.mymodule."
    )
    if "." not in name:
        raise UserError(sentence)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # a module that it imports itself
        raise UserError(sentence) from error
