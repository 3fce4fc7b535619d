"""The number of every option of every evaluator has a domain; the option is named."""

import dataclasses
import functools
import math
import typing

import pytest
from absl import flags

import eval as evals
from eval import cli
from eval.options import Count, Fraction, defaults_of, read_options
from sp_jax.errors import UserError

# Outside of the domain of an option, wherever it is one; `weight_decay` is by network below 0.
OUTSIDE = {
    "temperature": (0.0, -0.07),
    "delta": (0.0, -1e-4),
    "k": (0, -1),
    "learning_rates": (0.0, -0.1),
    "weight_decays": (-1e-4,),
    "learning_rate": (-0.1,),
    "layer_decay": (-0.1, 1.1),
    "crop_scale": (0.0, 1.01, -0.2),
    "holdout": (1.0, -0.1),
    "validation": (0.0, 1.0, -0.2, 2.0),
    "max_skipped": (-0.01, 1.5),
    "epochs": (-1,),
    "warmup_epochs": (-1,),
    "batch_size": (-1,),
    "images": (1, 0, -5),
    "image_size": (0, -64),
    "seed": (-1, 2**32),
    "seeds": (-1,),
    "weight_decay": (),
}


def needed_by(kind):
    """A value for each option without a default."""
    names = [field.name for field in dataclasses.fields(kind)]
    return {name: "x" for name in names if name not in defaults_of(kind)}


def cases():
    for name in evals.NAMES:
        kind = evals.get(name).Options
        for option, default in defaults_of(kind).items():
            several = isinstance(default, tuple)
            one = default[0] if several else default
            if isinstance(one, int | float):
                yield pytest.param(kind, option, one, several, id=f"{name}-{option}")


@pytest.mark.parametrize(("kind", "option", "default", "several"), list(cases()))
def test_numbers_are_finite_and_in_their_domain(kind, option, default, several):
    needed = needed_by(kind)
    wrong = list(OUTSIDE[option])
    if isinstance(default, float):
        wrong += [math.nan, math.inf, -math.inf]
    for value in wrong:
        given = (default, value) if several else value
        with pytest.raises(UserError, match=f"^{option} must be .*not {value}"):
            read_options(kind, needed | {option: given})
    assert getattr(read_options(kind, needed), option) == defaults_of(kind)[option]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Own:
    """Options as a user may declare them.

    Attributes:
      count: required.
      flip: a switch.
      most: a number or none.
      shares: several numbers, required.
    """

    count: Count
    flip: bool = True
    most: int | None = None
    shares: tuple[Fraction, ...]


def test_options_have_their_declared_types():
    given = {"count": 5, "flip": False, "most": 5, "shares": [0.5, 1]}
    assert read_options(Own, given) == Own(count=5, flip=False, most=5, shares=(0.5, 1))
    assert read_options(Own, {"count": 1, "most": None, "shares": (1,)}).most is None
    for wrong in ({"count": 0}, {"count": True}, {"flip": 1}, {"most": "5"}):
        with pytest.raises(UserError, match=f"^{next(iter(wrong))} must be"):
            read_options(Own, given | wrong)
    with pytest.raises(UserError, match="^shares must be .* not 1.5"):
        read_options(Own, given | {"shares": (0.5, 1.5)})


def test_options_on_the_command_line(monkeypatch, tmp_path):
    values = flags.FlagValues()
    monkeypatch.setattr(cli.flags, "FLAGS", values)
    for name in ("bool", "integer", "list"):
        define = functools.partial(getattr(flags, f"DEFINE_{name}"), flag_values=values)
        kind = {"integer": int}.get(name, bool)
        if name == "list":
            monkeypatch.setattr(flags, "DEFINE_list", define)
        else:
            monkeypatch.setitem(cli._DEFINE, kind, define)
    cli.define_flags(Own)
    values(["program", "--count=3", "--noflip", "--most=4", "--shares=0.25,1"])
    found = read_options(Own, cli.read_flags(Own, str(tmp_path)))
    assert found == Own(count=3, flip=False, most=4, shares=(0.25, 1.0))


def test_every_default_is_sound():
    for name in evals.NAMES:
        kind = evals.get(name).Options
        needed, defaults = needed_by(kind), defaults_of(kind)
        assert read_options(kind, needed | defaults)
        assert typing.get_type_hints(kind).keys() == needed.keys() | defaults.keys()
