"""Which network a state dict of another library belongs to."""

import math
import re
from collections.abc import Collection, Mapping

import flax.linen as nn
import numpy as np

from sp_jax.models.resnet import BasicBlock, Bottleneck, ResNet
from sp_jax.models.vit import ViT, sincos_position
from sp_jax.weights.names import State

# A network has one of these: a ResNet of torchvision or timm, a ViT of timm, and the two
# of transformers.
_FIRST = (
    "conv1.weight",
    "patch_embed.proj.weight",
    "embedder.embedder.convolution.weight",
    "embeddings.patch_embeddings.projection.weight",
)
HUGGING_FACE = _FIRST[2:]
# Where a file holds several networks: the one that its authors evaluate.
_PREFERRED = (
    *("teacher", "encoder_q", "base_encoder", "online", "online_encoder"),
    *("backbone", "encoder", "state_dict", "model"),
)
# Names that take part in the features of a network, and are no head on it.
_INNER = re.compile(
    r"(?!.*mask_token)((conv1|bn1|layer\d|blocks|embeddings|embedder|encoder)\.|"
    r"patch_embed|pos_embed|norm|\w+_tokens?\b)"
)
# Heads of each width where not 64 numbers make a head: timm's ViT-SO400M, -H, -g and -G.
_HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16}


def find_network(names: Collection[str]) -> tuple[str, str]:
    """Where a backbone begins among the names of a checkpoint.

    Returns:
        Its prefix, such as "module.encoder_q.", and the name of its first layer.

    Raises:
        ValueError: there is no backbone, or it is not clear which one is meant.
    """
    found = sorted(
        (name.removesuffix(first), first)
        for first in _FIRST
        for name in names
        if name == first or name.endswith(f".{first}")
    )
    # The first layers of blocks are called conv1, too.
    found = [one for one in found if not re.search(r"layer\d\.\d+\.$", one[0])]
    if not found:
        such = (
            f"; it has {min(names)}, for example" if names else "; it holds no arrays"
        )
        raise ValueError(
            "it has no ResNet of torchvision, timm or transformers, and no ViT of timm or "
            f"transformers{such}."
        )
    if len(found) == 1:
        return found[0]
    for word in _PREFERRED:
        fitting = [one for one in found if word in one[0].split(".")]
        if len(fitting) == 1:
            return fitting[0]
    prefixes = ", ".join(prefix or "(none)" for prefix, _ in found)
    raise ValueError(f"it holds several networks, {prefixes}: keep one of them.")


def fold_layer_scale(state: State) -> State:
    """Weights without LayerScale, which DINOv2 and DeiT III have, and the same features.

    A branch's output times gamma is the output of its last layer with scaled weights.

    Args:
        state: arrays by timm's names.
    """
    folded = dict(state)
    for name in [name for name in state if _SCALE.match(name)]:
        gamma = folded.pop(name).astype(np.float32)
        block, first = _SCALE.match(name).groups()
        layer = f"{block}.{'attn.proj' if first == '1' else 'mlp.fc2'}"
        if f"{layer}.weight" in folded and f"{layer}.bias" in folded:
            folded[f"{layer}.weight"] = folded[f"{layer}.weight"] * gamma[:, None]
            folded[f"{layer}.bias"] = folded[f"{layer}.bias"] * gamma
    return folded


def check_extra(names: Collection[str]) -> None:
    """Refuse parts that would change the features, and that no network here has.

    Args:
        names: by timm's naming, without prefix, those that the guessed network lacks.

    Raises:
        ValueError: one of them is no head.
    """
    if inner := sorted(filter(_INNER.match, names)):
        raise ValueError(
            f"the network has {len(inner)} parameters that ours has not, such as {inner[0]}, "
            "so its features would be others."
        )


def guess_module(
    state: Mapping[str, np.ndarray], dtype=np.float32, heads: int | None = None
) -> nn.Module:
    """The backbone of which these are the weights, by names and shapes.

    What has no parameters cannot be seen: a ResNet is torchvision's, its 3x3 stem has no
    pooling.

    Args:
        state: arrays by torchvision's (ResNet) or timm's (ViT) names.
        dtype: compute dtype of the module.
        heads: of a ViT, which no shape tells. By default one for each 64 of the width, as
            in all of DINO and, up to ViT-L, of timm; 12 for MoCo v3's ViT-S, which its fixed
            position embedding gives away.

    Raises:
        ValueError: it is neither.
    """
    if "patch_embed.proj.weight" in state:
        return _guess_vit(state, dtype, heads)
    if heads is not None:
        raise ValueError("a ResNet has no heads.")
    if "layer1.0.conv1.weight" not in state:
        raise ValueError("it is neither a ResNet of torchvision nor a ViT of timm.")
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


def _guess_vit(state: Mapping[str, np.ndarray], dtype, heads: int | None) -> ViT:
    needed = ("pos_embed", "cls_token", "blocks.0.mlp.fc1.weight")
    if missing := [name for name in needed if name not in state]:
        raise ValueError(f"its ViT has no {missing[0]}; ours has.")
    dim, patch = (state["patch_embed.proj.weight"].shape[i] for i in (0, -1))
    positions = state["pos_embed"]
    side = math.isqrt(positions.shape[1] - 1)
    fixed = (
        positions.shape == (1, 1 + side * side, dim)
        and dim % 4 == 0
        and np.allclose(positions, sincos_position(side, side, dim), atol=1e-5)
    )
    if heads is None:
        moco = fixed and dim == 384  # its ViT-S is the exception
        heads = 12 if moco else _HEADS.get(dim, max(1, dim // 64))
    return ViT(
        dim=dim,
        depth=1 + max(int(match[1]) for match in map(_BLOCK.match, state) if match),
        heads=heads,
        mlp_ratio=state["blocks.0.mlp.fc1.weight"].shape[0] / dim,
        patch_size=patch,
        image_size=side * patch,
        position="sincos" if fixed else "learned",
        dtype=dtype,
    )


_SCALE = re.compile(r"(blocks\.\d+)\.ls([12])\.gamma$")
_BLOCK = re.compile(r"blocks\.(\d+)\.")
_STAGE = re.compile(r"layer(\d)\.(\d+)\.")
