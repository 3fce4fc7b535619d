"""Options of the evaluators: their types, and which numbers they may be."""

import math
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple, TypeVar

from sp_jax.errors import UserError

Options = TypeVar("Options", bound=tuple)


class Domain(NamedTuple):
    """Which numbers an option may be, and the same in words."""

    holds: Callable[[float], bool]
    text: str


# The types of numbers in an evaluator's `Options`. All have to be finite.
Positive = Annotated[float, Domain(lambda x: x > 0, "above 0")]
NotNegative = Annotated[float, Domain(lambda x: x >= 0, "0 or above")]
Fraction = Annotated[float, Domain(lambda x: 0 <= x <= 1, "from 0 to 1")]
PositiveFraction = Annotated[float, Domain(lambda x: 0 < x <= 1, "above 0, at most 1")]
ProperFraction = Annotated[float, Domain(lambda x: 0 < x < 1, "between 0 and 1")]
Count = Annotated[int, Domain(lambda x: x >= 1, "1 or above")]
CountOrZero = Annotated[int, Domain(lambda x: x >= 0, "0 or above")]
Several = Annotated[int, Domain(lambda x: x >= 2, "2 or above")]
Seed = Annotated[int, Domain(lambda x: 0 <= x < 2**32, f"from 0 to {2**32 - 1}")]


def read_options(kind: type[Options], given: Mapping[str, Any]) -> Options:
    """Check the options given to an evaluator and fill in the defaults.

    Args:
      kind: the evaluator's `Options`, a NamedTuple.
      given: option -> value.

    Raises:
      UserError: an option is unknown, missing, of the wrong type or outside of its domain.
    """
    known = ", ".join(kind._fields)
    for name in given:
        if name not in kind._fields:
            raise UserError(f"Unknown option {name!r}: choose from {known}.")
    for name in kind._fields:
        if name not in kind._field_defaults and given.get(name) is None:
            raise UserError(f"The option {name!r} is missing: give it a value.")
    defaults, domains = kind._field_defaults, _domains(kind)
    checked = {}
    for name, value in given.items():
        checked[name] = _typed(name, value, defaults.get(name, ""))
        several = checked[name] if isinstance(checked[name], tuple) else [checked[name]]
        for number in several:
            _check(name, number, domains.get(name))
    return kind(**checked)


def _domains(kind: type[tuple]) -> dict[str, Domain]:
    """The domain of each field that has one; of a tuple, that of its elements."""
    found = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        if typing.get_origin(hint) is tuple:
            hint = typing.get_args(hint)[0]
        if typing.get_origin(hint) is Annotated:
            found[name] = hint.__metadata__[0]
    return found


def _check(name: str, value: Any, domain: Domain | None) -> None:
    """Check that a number is finite and in its domain; other values pass."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name} must be a finite number, not {value}.")
    if domain and not domain.holds(value):
        raise UserError(f"{name} must be {domain.text}, not {value}.")


def _typed(name: str, value: Any, default: Any) -> Any:
    """The value, of the type of its default: str, int, float or a tuple of these."""
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
