"""Find a module by a short name, or a user's own module by its import path."""

import difflib
import importlib
import inspect
import pathlib
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

from sp_jax.errors import UserError


class ImportFailed(UserError):
    """A user's own module cannot be imported."""


def find(kind: str, name: str, package: str, known: Sequence[str]) -> ModuleType:
    """Import the module of a method, a backbone, an evaluator or a store: what `kind` says.

    The name is one of the `known` in a package, or has a dot: the import path of a module
    outside the project, which Python finds in the current folder or in one of PYTHONPATH.

    Raises:
        UserError: the name is unknown.
        ImportFailed: the user's module cannot be imported.

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
            reason = describe_mistake(error)
        raise ImportFailed(
            f"The {kind} {name!r} cannot be imported: {reason}."
        ) from error


def describe_mistake(error: Exception) -> str:
    """What is wrong in a user's Python file, and in which line."""
    if isinstance(error, SyntaxError):
        return f"{error.msg} ({error.filename}, line {error.lineno})"
    line = traceback.extract_tb(error.__traceback__)[-1]
    kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
    words = " ".join(str(error).split())
    return f"{kind}{words} ({line.filename}, line {line.lineno})"


def check_contract(
    kind: str, name: str, module: ModuleType, needed: Sequence[str]
) -> None:
    """Raise UserError if a user's own module lacks one of the names it needs to have."""
    if lacks := [word for word in needed if not hasattr(module, word)]:
        raise UserError(
            f"The {kind} {name!r} ({module.__file__}) has no {lacks[0]}; it needs "
            f"{', '.join(needed)}."
        )


def check_options(
    name: str,
    options: Mapping[str, Any],
    known: Mapping[str, inspect.Parameter],
    section: str,
) -> None:
    """Raise ValueError if an option is unknown, or of another type than its default."""
    kinds = [argument.kind for argument in known.values()]
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        if unknown := sorted(options.keys() - known.keys()):
            raise ValueError(
                f"{name} has no option {unknown[0]!r} ({section}); it has: "
                f"{', '.join(known)}."
            )
    for key, value in options.items():
        default = known[key].default if key in known else None
        if isinstance(default, bool) and not isinstance(value, bool):
            raise ValueError(f"{section}.{key} is {value!r}: use True or False.")
        elif isinstance(default, int | float) and not isinstance(value, int | float):
            raise ValueError(f"{section}.{key} is {value!r}: give a number.")
        elif isinstance(default, str) and not isinstance(value, str):
            raise ValueError(f"{section}.{key} is {value!r}: give a string.")


def folders(names: Iterable[str]) -> dict[str, str]:
    """The folder on Python's path for each of a user's own modules, by import path."""
    found = {}
    for name in names:
        if "." in name:
            file = pathlib.Path(sys.modules[name].__file__).resolve()
            depth = name.count(".") + (file.name == "__init__.py")
            found[name] = str(file.parents[depth])
    return found
