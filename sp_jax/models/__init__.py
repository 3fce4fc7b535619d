"""Backbones and heads in Linen. `get("resnet50")` makes a backbone by its name.

A backbone is a module that maps normalised images [N, H, W, 3] to float32 features [N, D]
when called as `backbone(x, train)`.
"""

import functools

import flax.linen as nn

from sp_jax.models.heads import SimCLRHead as SimCLRHead
from sp_jax.models.resnet import BasicBlock, Bottleneck, ResNet

STEMS = ("imagenet", "small")

_BACKBONES = {
    "resnet18": functools.partial(ResNet, (2, 2, 2, 2), BasicBlock),
    "resnet34": functools.partial(ResNet, (3, 4, 6, 3), BasicBlock),
    "resnet50": functools.partial(ResNet, (3, 4, 6, 3), Bottleneck),
    "resnet101": functools.partial(ResNet, (3, 4, 23, 3), Bottleneck),
}


def get(name: str, **options) -> nn.Module:
    """Make a backbone.

    Args:
        name: resnet18, resnet34, resnet50 or resnet101.
        **options: attributes of the module, such as `width` and `stem` of `ResNet`.

    Raises:
        ValueError: the name or the stem is unknown.

    Example:
        >>> get("resnet18", stem="small").width
        64
    """
    if name not in _BACKBONES:
        known = ", ".join(sorted(_BACKBONES))
        raise ValueError(f"There is no backbone {name!r}; choose one of: {known}.")
    if options.get("stem", "imagenet") not in STEMS:
        raise ValueError(
            f"There is no stem {options['stem']!r}; choose 'imagenet' or 'small'."
        )
    return _BACKBONES[name](**options)
