"""From the plain numbers of a config to a method, its views and its optimiser.

A value that is None in the config is the method's own default.
"""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sp_jax import methods, models, optim
from sp_jax.augment import Augment


class Recipe(NamedTuple):
    """What is trained, on which views."""

    method: methods.Method
    views: tuple[Augment, ...]


class Optimizer(NamedTuple):
    """The gradient transformation, and its learning rate as a function of the step."""

    tx: optax.GradientTransformation
    schedule: optax.Schedule


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def compute_dtype(name: str) -> jnp.dtype:
    """The dtype of activations: "auto" is bfloat16 on accelerators, float32 on a CPU.

    Raises:
        ValueError: the name is not auto, float32 or bfloat16.
    """
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    if name not in ("float32", "bfloat16"):
        raise ValueError(f"dtype is {name!r}: use 'auto', 'float32' or 'bfloat16'.")
    return jnp.dtype(name)


def make_recipe(config: Mapping[str, Any]) -> Recipe:
    """Build the method and its views from a config (see `configs/common.py`).

    Raises:
        ValueError: a name, an option or a value is wrong.
    """
    module = methods.get(config["method"])
    backbone = models.get(**config["model"], dtype=compute_dtype(config["dtype"]))
    options = _given(config["method_options"])
    known = list(inspect.signature(module.create).parameters)[1:]
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(
            f"{config['method']} has no option {unknown[0]!r} "
            f"(config.method_options); it has: {', '.join(known)}."
        )
    changes = _given(config["augment"])
    views = tuple(
        dataclasses.replace(view, **changes)
        for view in module.views(config["image_size"])
    )
    return Recipe(module.create(backbone, **options), views)


def make_optimizer(
    config: Mapping[str, Any], total_steps: int, steps_per_epoch: int
) -> Optimizer:
    """Build the optimiser; the rate is given for a batch of 256 and scaled to the batch.

    Raises:
        ValueError: the optimiser is unknown or the warm-up is too long.
    """
    recipe = methods.get(config["method"]).OPTIMIZER | _given(config["optimizer"])
    schedule = optim.warmup_cosine(
        optim.linear_scaling(recipe["learning_rate"], config["batch_size"]),
        total_steps,
        round(recipe["warmup_epochs"] * steps_per_epoch),
    )
    tx = optim.get(
        recipe["name"],
        schedule,
        weight_decay=recipe["weight_decay"],
        momentum=recipe["momentum"],
    )
    return Optimizer(tx, schedule)
