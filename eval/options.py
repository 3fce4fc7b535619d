"""Options of the evaluators: their types, and the ranges of their numbers."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from sp_jax import domains
from sp_jax.domain import Domain, whole
from sp_jax.errors import UserError

Options = TypeVar("Options")

# The types of numbers in an evaluator's `Options`; others have to be finite.
Positive = Annotated[float, domains.POSITIVE]
NotNegative = Annotated[float, domains.NOT_NEGATIVE]
Fraction = Annotated[float, domains.SHARE]
PositiveFraction = Annotated[float, domains.POSITIVE_SHARE]
ProperFraction = Annotated[float, Domain(0, 1, above=True, below=True)]
Count = Annotated[int, domains.COUNT]
CountOrZero = Annotated[int, domains.COUNT_OR_NONE]
Several = Annotated[int, whole(2)]
Seed = Annotated[int, domains.SEED]


def defaults_of(kind: type) -> dict[str, Any]:
    """The defaults of the options that have one."""
    fields = dataclasses.fields(kind)
    return {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}


def shown(number: float) -> str:
    """A number in the exact form of a protocol: 1.0 as 1, 0.07 as 0.07."""
    return repr(number).removesuffix(".0")


def changed(settings: Any, *names: str) -> str:
    """The options that differ from their defaults, as a part of a protocol.

    Args:
      settings: an evaluator's `Options`.
      *names: of options with a default that the protocol does not name otherwise.

    Example:
      >>> from eval.finetune import Options
      >>> given = dict(dataset="emoji", train_split="train", test_split="test")
      >>> changed(Options(**given, epochs=9, warmup_epochs=1), "warmup_epochs", "seed")
      ', warmup_epochs 1'
    """
    text = ""
    for name in names:
        value = getattr(settings, name)
        if value != defaults_of(type(settings))[name]:
            several = value if isinstance(value, tuple) else (value,)
            text += f", {name} {'/'.join(map(shown, several))}"
    return text


def read_options(kind: type[Options], given: Mapping[str, Any]) -> Options:
    """Check the options given to an evaluator, and fill in the defaults of its `Options`.

    Raises:
      UserError: an option is unknown, missing, of the wrong type or outside its domain.
    """
    names = [field.name for field in dataclasses.fields(kind)]
    defaults = defaults_of(kind)
    hints = typing.get_type_hints(kind, include_extras=True)
    for name in given:
        if name not in names:
            raise UserError(f"Unknown option {name!r}: choose from {', '.join(names)}.")
    for name in names:
        if name not in defaults and given.get(name) is None:
            raise UserError(f"The option {name!r} is missing: give it a value.")
    checked = {}
    for name, value in given.items():
        checked[name] = _typed(name, value, defaults.get(name, ""))
        several = isinstance(checked[name], tuple)
        hint = typing.get_args(hints[name])[0] if several else hints[name]
        for number in checked[name] if several else [checked[name]]:
            finite = domains.FINITE if isinstance(number, float) else None
            (domain,) = getattr(hint, "__metadata__", [finite])
            if domain and number is not None and number not in domain:
                raise UserError(f"{name} must be {domain}, not {number}.")
    return kind(**checked)


def _typed(name: str, value: Any, default: Any) -> Any:
    """The value with the type of its default: str, int, float or a tuple of these."""
    if isinstance(default, tuple):
        if not isinstance(value, tuple | list) or not value:
            raise UserError(f"{name} must be a non-empty list, not {value!r}.")
        return tuple(_typed(name, one, default[0]) for one in value)
    if default is None:
        default = ""
        if value is None:
            return None
    allowed = (int, float) if isinstance(default, float) else type(default)
    if not isinstance(value, allowed) or isinstance(value, bool):
        wanted = type(default).__name__
        raise UserError(f"{name} must be of type {wanted}, not {value!r}.")
    return type(default)(value)
