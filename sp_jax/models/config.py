"""A backbone from the plain values of a config."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sp_jax import models

# Fields that do not change what variables mean: how they are drawn, trained or computed, and
# which tokens are read.
_NOT_TOLD = set(
    "dtype remat attention zero_init_residual drop_path freeze_patch_embedding tokens "
    "parent name".split()
)


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


def make_backbone(
    options: Mapping[str, Any], dtype: str, sides: Sequence[int], train: bool
) -> nn.Module:
    """Make the backbone of a config, and check that it fits the views' sides in pixels and,
    with `train`, this device.

    The options are the config's `model` without chunks. A backbone outside the project need
    not have the options of a ResNet: `sp_jax/config.py` puts these into all configs, and no
    command line can remove them.

    Raises:
        ValueError: a value is wrong, or does not fit the views.
        UserError: there is no such backbone, or its module cannot be used.
    """
    options, name = dict(options), options["name"]
    outside = "." in name
    if outside:
        known = models.known_options(name)
        for option in {"width", "stem", "zero_init_residual"} - known.keys():
            options.pop(option, None)
    backbone = models.get(**options, dtype=compute_dtype(dtype))
    for side in sides:
        if side % backbone.patch_size:
            raise ValueError(
                f"views of {side} px (config.image_size is {sides[0]}, local crops have half "
                f"of it) cannot be cut into patches of {backbone.patch_size} px "
                "(config.model.patch_size): choose a multiple."
            )
    if (
        train
        and options.get("attention") == "cudnn"
        and not getattr(backbone, "one_kernel", True)
    ):
        raise ValueError(
            "config.model.attention='cudnn' needs a GPU, config.dtype='bfloat16' and heads "
            "whose width is a multiple of 8 and at most 128: set it to 'xla'."
        )
    if outside:
        models.check_features(name, backbone, (sides[0], sides[0], 3))
    return backbone


def find_changes(ours: nn.Module, theirs: nn.Module) -> dict[str, Any] | None:
    """The changes to `config.model` that make it fit the weights of another backbone.

    Returns:
        {} if the weights fit already; None if no backbone of ours is like the other one.
    """
    before, after = _values(ours), _values(theirs)
    if type(ours) is type(theirs) and before == after:
        return {}
    mine, options = _options(ours) or {}, _options(theirs)
    if options is None:
        return None
    default = {name: x for name, x in after.items() if name in mine}
    wanted = {**default, **options}
    return {name: x for name, x in wanted.items() if mine.get(name) != x}


def _values(module: nn.Module) -> dict[str, Any]:
    """The fields that decide how variables become features."""
    names = {field.name for field in dataclasses.fields(module)} - _NOT_TOLD
    if getattr(module, "position", None) == "sincos":
        names -= {"image_size"}  # such positions are computed for any
    return {name: getattr(module, name) for name in sorted(names)}


def _options(module: nn.Module) -> dict[str, Any] | None:
    """The shortest `config.model` that makes a backbone; None for a user's own."""
    found = []
    for name, make in models.VARIANTS.items():
        default, values = make(), _values(module)
        other = {k: x for k, x in values.items() if getattr(default, k, None) != x}
        if (
            type(default) is type(module)
            and other.keys() <= models.known_options(name).keys()
        ):
            found.append({"name": name, **other})
    return min(found, key=len, default=None)
