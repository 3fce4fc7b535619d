"""Backbones and heads in Linen. `get("resnet50")` makes a backbone by its name.

A backbone is a module that maps normalised images [N, H, W, 3] to float32 features [N, D]
when called as `backbone(x, train)`. Images and parameters may be numpy's:
`Any` in annotations.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn

from sp_jax.models.chunked import Chunked as Chunked
from sp_jax.models.heads import MLP as MLP
from sp_jax.models.heads import DINOHead as DINOHead
from sp_jax.models.heads import SimCLRHead as SimCLRHead
from sp_jax.models.resnet import BasicBlock, Bottleneck, ResNet
from sp_jax.models.vit import ViT as ViT

STEMS = ("imagenet", "small")

_BACKBONES: dict[str, Any] = {
    "resnet18": functools.partial(ResNet, (2, 2, 2, 2), BasicBlock),
    "resnet34": functools.partial(ResNet, (3, 4, 6, 3), BasicBlock),
    "resnet50": functools.partial(ResNet, (3, 4, 6, 3), Bottleneck),
    "resnet101": functools.partial(ResNet, (3, 4, 23, 3), Bottleneck),
    "vit_tiny": functools.partial(ViT, dim=192, depth=12, heads=3),
    "vit_small": functools.partial(ViT, dim=384, depth=12, heads=6),
    "vit_base": functools.partial(ViT, dim=768, depth=12, heads=12),
}


def get(name: str, **options: Any) -> nn.Module:
    """Make a backbone.

    Args:
        name: resnet18, resnet34, resnet50, resnet101, vit_tiny, vit_small or vit_base.
        **options: attributes of the module, such as `width` and `stem` of `ResNet` or
            `patch_size` and `image_size` of `ViT`.

    Raises:
        ValueError: the name, an option or its value is unknown, or sizes do not fit.

    Example:
        >>> get("resnet18", stem="small").width
        64
        >>> get("vit_small", patch_size=8).dim
        384
    """
    if name not in _BACKBONES:
        names = ", ".join(sorted(_BACKBONES))
        raise ValueError(f"There is no backbone {name!r}; choose one of: {names}.")
    make = _BACKBONES[name]
    fields = {field.name for field in dataclasses.fields(make.func)}
    # "tokens" are chosen by evaluations (`sp_jax.tokens`); training is on the class token.
    known = fields - {"stage_sizes", "block", "parent", "name", "tokens"}
    for option in options:
        if option not in known:
            raise ValueError(
                f"{name} has no option {option!r}; choose among: "
                f"{', '.join(sorted(known))}."
            )
    if options.get("stem", "imagenet") not in STEMS:
        raise ValueError(
            f"There is no stem {options['stem']!r}; choose 'imagenet' or 'small'."
        )
    for field in dataclasses.fields(make.func):
        value = options.get(field.name, field.default)
        if isinstance(field.default, bool) and not isinstance(value, bool):
            raise ValueError(f"{field.name} is {value!r}: use True or False.")
    return make(**options)
