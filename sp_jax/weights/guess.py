"""The network that a state dict of another library belongs to."""

import math
import re
from collections.abc import Collection, Mapping

import flax.linen as nn
import numpy as np

from sp_jax.models.resnet import BasicBlock, Bottleneck, ResNet
from sp_jax.models.vit import ViT, sincos_position
from sp_jax.weights.find import INNER
from sp_jax.weights.names import State

# Heads of each width where not 64 numbers make a head: timm's ViT-SO400M, -H, -g and -G.
_HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16}
_MOST = 1000  # blocks: a file that counts more of them is none of a network


def simplify(state: State) -> State:
    """The same features by weights that the networks here have, too.

    - LayerScale (DINOv2, DeiT III): a branch's output times gamma is the output of its last
      layer with scaled weights.
    - Positions of the patches alone (DeiT III): that of the class token is zero.

    Args:
        state: arrays by timm's names.
    """
    simple = dict(state)
    for name in state:
        if not (match := _SCALE.match(name)):
            continue
        gamma = state[name].astype(np.float32)
        layer = match[1] + (".attn.proj" if "1" in match[2] else ".mlp.fc2")
        weight, bias = (simple.get(f"{layer}.{leaf}") for leaf in ("weight", "bias"))
        if weight is None or bias is None:
            continue  # check_extra refuses it
        if not gamma.shape == bias.shape == weight.shape[:1]:
            continue
        del simple[name]
        simple[f"{layer}.weight"] = weight * gamma[:, None]
        simple[f"{layer}.bias"] = bias * gamma
    positions = state.get("pos_embed")
    if "cls_token" in state and positions is not None and positions.ndim == 3:
        if math.isqrt(positions.shape[1]) ** 2 == positions.shape[1]:
            simple["pos_embed"] = np.pad(positions, ((0, 0), (1, 0), (0, 0)))
    return simple


def check_extra(names: Collection[str]) -> None:
    """Refuse parts that would change the features, and that no network here has.

    Args:
        names: by timm's naming, without prefix, those that the guessed network lacks.

    Raises:
        ValueError: one of them is no head.
    """
    if inner := sorted(filter(INNER.match, names)):
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
    if not {"conv1.weight", "layer1.0.conv1.weight"} <= state.keys():
        raise ValueError("it is neither a ResNet of torchvision nor a ViT of timm.")
    width, *_, kernel = _shape(state, "conv1.weight", 4)
    counts = [
        _count(state, rf"layer{stage}\.(\d+)\.")
        for stage in range(1, 1 + _count(state, r"layer(\d+)\.", first=1))
    ]
    if len(counts) > 8:
        raise ValueError(f"no ResNet has {len(counts)} stages.")
    return ResNet(
        tuple(counts),
        Bottleneck if "layer1.0.conv3.weight" in state else BasicBlock,
        width=width,
        stem="imagenet" if kernel == 7 else "small",
        dtype=dtype,
    )


def _guess_vit(state: Mapping[str, np.ndarray], dtype, heads: int | None) -> ViT:
    needed = ("pos_embed", "cls_token", "blocks.0.mlp.fc1.weight")
    if missing := [name for name in needed if name not in state]:
        raise ValueError(f"its ViT has no {missing[0]}; ours has.")
    dim, *_, patch = _shape(state, "patch_embed.proj.weight", 4)
    positions = state["pos_embed"]
    side = math.isqrt(_shape(state, "pos_embed", 3)[1] - 1)
    fixed = (
        positions.shape == (1, 1 + side * side, dim)
        and dim % 4 == 0
        and np.allclose(positions, sincos_position(side, side, dim), atol=1e-5)
    )
    if heads is None:
        moco = fixed and dim == 384  # its ViT-S is the exception
        heads = 12 if moco else _HEADS.get(dim, max(1, dim // 64))
    if type(heads) is not int or heads < 1:
        raise ValueError(f"heads must be a whole number from 1 on, not {heads!r}.")
    hidden = _shape(state, "blocks.0.mlp.fc1.weight", 2)[0]
    ratio = hidden / dim
    if int(ratio * dim) < hidden:  # as ViT rounds
        ratio = math.nextafter(ratio, math.inf)
    return ViT(
        dim=dim,
        depth=_count(state, r"blocks\.(\d+)\."),
        heads=heads,
        mlp_ratio=ratio,
        patch_size=patch,
        image_size=side * patch,
        position="sincos" if fixed else "learned",
        dtype=dtype,
    )


def _shape(state: Mapping[str, np.ndarray], name: str, axes: int) -> tuple[int, ...]:
    shape = state[name].shape
    if len(shape) != axes or 0 in shape:
        raise ValueError(f"no network has {name} of the shape {list(shape)}.")
    return shape


def _count(state: Mapping[str, np.ndarray], pattern: str, first: int = 0) -> int:
    """How many numbers a pattern finds in the names, which must have no gaps."""
    found = filter(None, (re.match(pattern, name) for name in state))
    numbers = {match[1]: match[0] for match in found}
    for number in map(str, range(first, first + len(numbers))):
        if number not in numbers:
            most = max(numbers, key=lambda n: (len(n), n))
            raise ValueError(
                f"it has {numbers[most][:40]}*, and none of number {number}."
            )
    if len(numbers) > _MOST:
        raise ValueError(f"no network has {len(numbers)} blocks.")
    return len(numbers)


_SCALE = re.compile(r"(blocks\.\d+)\.(ls[12]\.gamma|gamma_[12])$")
