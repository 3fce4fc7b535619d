"""Options of the evaluators: their types, and the ranges of their numbers."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple, TypeVar

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
    for name in given:
        if name not in names:
            raise UserError(f"Unknown option {name!r}: choose from {', '.join(names)}.")
    for name in names:
        if name not in defaults and given.get(name) is None:
            raise UserError(f"The option {name!r} is missing: give it a value.")
    checked, forms = {}, forms_of(kind)
    for name, value in given.items():
        form = forms[name]
        checked[name] = _typed(name, value, form)
        for number in checked[name] if form.several else [checked[name]]:
            finite = domains.FINITE if isinstance(number, float) else None
            domain = form.domain or finite
            if domain and number is not None and number not in domain:
                raise UserError(f"{name} must be {domain}, not {number}.")
    return kind(**checked)


class Form(NamedTuple):
    """The declared form of an option.

    Attributes:
      type: str, bool, int or float.
      several: whether it is a tuple of these.
      optional: whether it may be None.
      domain: of a number; None: any.
    """

    type: type
    several: bool
    optional: bool
    domain: Domain | None


def forms_of(kind: type) -> dict[str, Form]:
    """The declared form of each option of an evaluator's `Options`."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: _form(hints[field.name]) for field in dataclasses.fields(kind)}


def _form(hint: Any) -> Form:
    optional = typing.get_origin(hint) in (types.UnionType, typing.Union)
    if optional:
        (hint,) = (one for one in typing.get_args(hint) if one is not types.NoneType)
    if several := typing.get_origin(hint) is tuple:
        hint = typing.get_args(hint)[0]
    (domain,) = getattr(hint, "__metadata__", (None,))
    if typing.get_origin(hint) is Annotated:
        hint = hint.__origin__
    if hint not in (str, bool, int, float):
        raise UserError(
            f"An option of an evaluator is declared as {hint}: use str, bool, int, float, a "
            "tuple of one of these, or one of these or None."
        )
    return Form(hint, several, optional, domain)


def _typed(name: str, value: Any, form: Form) -> Any:
    """The value in its form; numbers without a fraction may stand for a float."""
    if value is None and form.optional:
        return None
    if form.several:
        if not isinstance(value, tuple | list) or not value:
            raise UserError(f"{name} must be a non-empty list, not {value!r}.")
        one = form._replace(several=False, optional=False)
        return tuple(_typed(name, x, one) for x in value)
    allowed = (int, float) if form.type is float else form.type
    if not isinstance(value, allowed) or isinstance(value, bool) != (form.type is bool):
        wanted = form.type.__name__
        raise UserError(f"{name} must be of type {wanted}, not {value!r}.")
    return form.type(value)
