"""Find a module by a short name, or a user's own module by its import path."""

import difflib
import importlib
import traceback
from collections.abc import Sequence
from types import ModuleType

from sp_jax.errors import UserError


def find(kind: str, name: str, package: str, known: Sequence[str]) -> ModuleType:
    """Import the module of a method, a backbone, an evaluator or a store.

    Args:
        kind: what it is, for messages: "method".
        name: one of `known`, or with a dot the import path of a module outside of the
            project, such as "mypackage.mymethod". Python finds it in the current folder
            or in one of PYTHONPATH.
        package: the package that holds the known modules.
        known: names of modules in it.

    Raises:
        UserError: the name is unknown, or the user's module cannot be imported.

    Example:
        >>> find("method", "simclr", "sp_jax.methods", ["byol", "simclr"]).__name__
        'sp_jax.methods.simclr'
        >>> find("decoder", "json.decoder", "sp_jax.methods", []).__name__
        'json.decoder'
    """
    if name in known:
        return importlib.import_module(f"{package}.{name}")
    words = name.split(".") if isinstance(name, str) else [""]
    if len(words) < 2 or not all(word.isidentifier() for word in words):
        near = difflib.get_close_matches(str(name), known, n=3)
        names = ", ".join(dict.fromkeys([*near, *known]))
        raise UserError(
            f"There is no {kind} {name!r}; choose one of: {names}; or give the import path "
            f"of your own module, such as mypackage.my{kind}."
        )
    try:
        return importlib.import_module(name)
    except Exception as error:  # a module is a program
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{name}.".startswith(f"{missing}."):
            reason = (
                f"Python finds no {missing}. Start from the folder that holds {words[0]}, "
                "or put that folder on PYTHONPATH"
            )
        else:
            reason = f"{type(error).__name__}: {_describe(error)}"
        raise UserError(f"The {kind} {name!r} cannot be imported: {reason}.") from error


def _describe(error: Exception) -> str:
    """The message of an error in a user's module, and where it is."""
    if isinstance(error, SyntaxError):
        return f"{error.msg} ({error.filename}, line {error.lineno})"
    line = traceback.extract_tb(error.__traceback__)[-1]
    return f"{' '.join(str(error).split())} ({line.filename}, line {line.lineno})"
