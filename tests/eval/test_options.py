"""The number of every option of every evaluator has a domain; the option is named."""

import dataclasses
import math
import typing

import pytest

import eval as evals
from eval.options import defaults_of, read_options
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


def test_every_default_is_sound():
    for name in evals.NAMES:
        kind = evals.get(name).Options
        needed, defaults = needed_by(kind), defaults_of(kind)
        assert read_options(kind, needed | defaults)
        assert typing.get_type_hints(kind).keys() == needed.keys() | defaults.keys()
