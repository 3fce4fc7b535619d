"""Backbones and heads in Linen. `get("resnet50")` makes a backbone by its name.

A backbone is a module that maps normalised images [N, H, W, 3] to float32 features [N, D]
when called as `backbone(x, train)`; `Facts` says what else is asked about it. Its file has
`VARIANTS`, which makes one by each name, and `DOMAINS` of the numbers among its options. A
module outside the project has `create(**options)` instead, and is named by its import
path.

Images and parameters may be numpy's: `Any` in annotations.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sp_jax import registry
from sp_jax.errors import UserError
from sp_jax.models import resnet, vit
from sp_jax.models.chunked import Chunked as Chunked
from sp_jax.models.facts import Facts as Facts
from sp_jax.models.heads import MLP as MLP
from sp_jax.models.heads import DINOHead as DINOHead
from sp_jax.models.heads import SimCLRHead as SimCLRHead
from sp_jax.models.vit import ViT as ViT

_FILES = (resnet, vit)
VARIANTS = {name: make for file in _FILES for name, make in file.VARIANTS.items()}
DOMAINS = {name: domain for file in _FILES for name, domain in file.DOMAINS.items()}

# Fields of a module that are no options: "tokens" are chosen by evaluations.
_FIXED = ("stage_sizes", "block", "parent", "name", "tokens")


def get(name: str, **options: Any) -> nn.Module:
    """Make a backbone.

    Args:
        name: resnet18, resnet34, resnet50, resnet101, vit_tiny, vit_small, vit_base, or
            the import path of a module whose `create(**options)` makes one.
        **options: attributes of the module, such as `width` and `stem` of `ResNet` or
            `patch_size` and `image_size` of `ViT`.

    Raises:
        ValueError: the name, an option or its value is unknown, sizes do not fit, or what
            a module outside the project makes is not a backbone.

    Example:
        >>> get("resnet18", stem="small").width
        64
        >>> get("vit_small", patch_size=8).dim
        384
    """
    create = find(name)
    registry.check_options(name, options, known_options(name), "config.model")
    backbone = create(**options)
    if not (isinstance(backbone, nn.Module) and isinstance(backbone, Facts)):
        raise UserError(
            f"create() of {name} must return a Flax module that also derives from "
            f"sp_jax.models.Facts; it returns a {type(backbone).__name__}."
        )
    return backbone


def find(name: str) -> Callable[..., nn.Module]:
    """The function that makes a backbone from options; UserError if it cannot be used."""
    if name in VARIANTS:
        return VARIANTS[name]
    module = registry.find("backbone", name, __name__, tuple(VARIANTS))
    registry.check_contract("backbone", name, module, ("create",))
    return module.create


def known_options(name: str) -> dict[str, inspect.Parameter]:
    """The options of a backbone, with their defaults."""
    options = inspect.signature(find(name)).parameters
    return {key: value for key, value in options.items() if key not in _FIXED}


def check_features(name: str, backbone: nn.Module, shape: tuple[int, ...]) -> None:
    """Raise UserError if a user's own backbone does not give features of images [H, W, 3].

    Nothing is computed.
    """
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    make = functools.partial(backbone.init_with_output, train=False)
    features, _ = jax.eval_shape(make, jax.random.key(0), images)
    if getattr(features, "ndim", 0) != 2 or features.dtype != jnp.float32:
        raise UserError(
            f"{name} must map images to features float32 [N, D]; for float32 images "
            f"{list(images.shape)} it returns {features}."
        )
