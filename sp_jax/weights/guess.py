"""Which network a state dict of torchvision or timm belongs to."""

import math
import re
from collections.abc import Collection, Mapping

import flax.linen as nn
import numpy as np

from sp_jax.models.resnet import BasicBlock, Bottleneck, ResNet
from sp_jax.models.vit import ViT

# A ResNet and a ViT each have one of these.
_FIRST = ("conv1.weight", "patch_embed.proj.weight")
# Where a file holds several networks: the one that its authors evaluate.
_PREFERRED = ("teacher", "encoder_q", "base_encoder", "online", "backbone", "encoder")


def strip_prefix(names: Collection[str]) -> str:
    """The prefix of a backbone among the names of a checkpoint, such as "module.".

    Raises:
        ValueError: there is no backbone, or it is not clear which one is meant.
    """
    found = sorted(
        name.removesuffix(first)
        for first in _FIRST
        for name in names
        if name == first or name.endswith(f".{first}")
    )
    # The first layers of blocks are called conv1, too.
    found = [prefix for prefix in found if not re.search(r"layer\d\.\d+\.$", prefix)]
    if not found:
        raise ValueError(
            "There is no ResNet of torchvision and no ViT of timm in it: no name ends in "
            f"{' or '.join(_FIRST)}."
        )
    if len(found) == 1:
        return found[0]
    for word in _PREFERRED:
        fitting = [prefix for prefix in found if word in prefix.split(".")]
        if len(fitting) == 1:
            return fitting[0]
    raise ValueError(
        f"It holds several networks: {', '.join(found)}; keep one of them."
    )


def guess_module(state: Mapping[str, np.ndarray], dtype=np.float32) -> nn.Module:
    """The backbone of which these are the weights, by names and shapes.

    Args:
        state: arrays by torchvision's (ResNet) or timm's (ViT) names.
        dtype: compute dtype of the module.

    Raises:
        ValueError: it is neither.
    """
    if "patch_embed.proj.weight" in state:
        dim, _, patch, _ = state["patch_embed.proj.weight"].shape
        if "pos_embed" not in state:
            raise ValueError("The ViT has no pos_embed.")
        depth = 1 + max(int(m[1]) for m in map(_BLOCK.match, state) if m)
        hidden = state["blocks.0.mlp.fc1.weight"].shape[0]
        side = math.isqrt(state["pos_embed"].shape[1] - 1)
        return ViT(
            dim=dim,
            depth=depth,
            heads=max(1, dim // 64),  # no shape tells; all of timm's and DINO's have 64
            mlp_ratio=hidden / dim,
            patch_size=patch,
            image_size=side * patch,
            dtype=dtype,
        )
    if "layer1.0.conv1.weight" not in state:
        raise ValueError("It is neither a ResNet of torchvision nor a ViT of timm.")
    stages = {}
    for match in filter(None, map(_STAGE.match, state)):
        stage, block = int(match[1]), int(match[2])
        stages[stage] = max(stages.get(stage, 0), block + 1)
    return ResNet(
        tuple(stages[stage] for stage in sorted(stages)),
        Bottleneck if "layer1.0.conv3.weight" in state else BasicBlock,
        width=state["conv1.weight"].shape[0],
        stem="imagenet" if state["conv1.weight"].shape[-1] == 7 else "small",
        dtype=dtype,
    )


_BLOCK = re.compile(r"blocks\.(\d+)\.")
_STAGE = re.compile(r"layer(\d)\.(\d+)\.")
