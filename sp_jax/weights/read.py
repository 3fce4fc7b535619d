"""Weights from files: our own, and those of torchvision, timm and transformers."""

import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from sp_jax.augment.config import IMAGENET_MEAN, IMAGENET_STD
from sp_jax.backbone import Backbone, Colour
from sp_jax.errors import UserError
from sp_jax.models.config import compute_dtype
from sp_jax.weights.families import family
from sp_jax.weights.find import INNER, find_network
from sp_jax.weights.folder import find_file, folder_says
from sp_jax.weights.names import gather
from sp_jax.weights.state_dict import from_torch, owned_names
from sp_jax.weights.tensors import read

_LARGEST = 10_000  # pixels of a side


def load(
    path: str | os.PathLike,
    *,
    network: str | None = None,
    heads: int | None = None,
    size: int | None = None,
    mean: Colour | None = None,
    std: Colour | None = None,
) -> Backbone:
    """Load a backbone from a file: ours, torchvision's, timm's or transformers'.

    A .safetensors or .pth that `save` wrote says what it holds. In other files the network is
    guessed from names and shapes, which do not show layers without parameters: a ResNet is
    taken to be torchvision's, and a 3x3 stem to have no pooling. Prefixes such as "module." or
    "encoder_q." are removed, and so are other parts than the backbone, such as a classifier.

    Args:
        path: .safetensors, or .pth, .pt, .tar, .bin and .ckpt, which need PyTorch; or the
            folder of a network of transformers, as `save` and `save_pretrained` write it.
        network: which of several networks in the file: the prefix of its names, or a part of
            it, such as "teacher". By default the one that the authors evaluate.
        heads: of a ViT; no shape shows them. By default one for each 64 of the width, as
            in all of DINO and, up to ViT-L, of timm; 12 for MoCo v3's ViT-S, recognised by
            its fixed position embedding.
        size: side of the images in pixels. By default the file's, else 224 for a ResNet, and
            for a ViT the size that its positions are for.
        mean: of each channel; by default the file's, else ImageNet's.
        std: likewise.

    Returns:
        The backbone. Its info has "guessed" (whether the file did not say what it holds),
        "network" (the prefix of its names), "left_out" (names that are not of the backbone),
        "images" (how they are prepared: "image_size", "resize"), "method" and "step" (None
        and 0 if unknown).

    Raises:
        UserError: the file cannot be used: it is damaged, holds no network that is known
            here, or holds several and `network` names none of them.
        OSError: it cannot be opened.
    """
    path = find_file(path) or pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    try:
        tensors = read(path)
        about = {**folder_says(path), **tensors.about}
        found = find_network(tensors.shapes, network)
        names = {
            name: found.rename(name.removeprefix(found.prefix))
            for name in tensors.shapes
            if name.startswith(found.prefix)
        }
        arrays = {
            name.removeprefix(found.prefix): tensors.get(name)
            for name, ours in names.items()
            # Heads may be anything, and counters of batches are not needed.
            if INNER.match(ours) and not ours.endswith("num_batches_tracked")
        }
        state = gather(arrays, found.rename)
        simple = found.family.simplify(state)
        said = about.get("module") if heads is None else None
        heads = _first(heads, (said or about).get("heads"))
        module = found.family.guess(simple, compute_dtype("auto"), heads)
        if said is not None:
            module = _as_described(module, said)
        known = owned_names(module)
        if inner := sorted(filter(INNER.match, simple.keys() - known)):
            raise ValueError(
                f"the network has {len(inner)} parameters that ours lacks, such as "
                f"{inner[0]}, so its features would differ."
            )
        variables = from_torch(module, simple)
        size = _first(size, about.get("size"), module.image_size)
        mean = tuple(_first(mean, about.get("mean"), IMAGENET_MEAN))
        std = tuple(_first(std, about.get("std"), IMAGENET_STD))
        images = about.get("images") or {"image_size": size, "resize": "crop"}
        _check(module, size, images.get("image_size", size), mean, std)
    except ValueError as error:
        raise UserError(f"{path} cannot be used: {error}") from error
    used = known | (state.keys() - simple.keys())
    left_out = [n for n in sorted(tensors.shapes) if names.get(n) not in used]
    info = {
        "path": str(path),
        "guessed": "module" not in about,
        "network": found.prefix.removesuffix("."),
        "left_out": left_out,
        "images": images,
        "method": about.get("method"),
        "step": about.get("step") or 0,
    }
    return Backbone(module, variables, size, mean, std, info)


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _as_described(module: nn.Module, described: Mapping[str, Any]) -> nn.Module:
    """The guessed network, if it is the one that the file describes."""
    ours = family(module).description(module)
    if described.get("position") == "learned" and ours.get("position") == "sincos":
        module = module.clone(position="learned")
        ours["position"] = "learned"
    if isinstance(ratio := described.get("mlp_ratio"), int | float):
        if abs(ratio - ours.get("mlp_ratio", math.inf)) < 1 / module.dim:
            ours["mlp_ratio"] = ratio  # whose product with the width is rounded
    other = [k for k in described | ours if described.get(k) != ours.get(k)]
    if other:
        raise ValueError(
            "it describes a network that is unknown here, or not the one whose arrays it "
            f"holds ({', '.join(other)}); a newer sp_jax may read it."
        )
    return module


def _check(
    module: nn.Module, size: Any, images: Any, mean: Colour, std: Colour
) -> None:
    for side, step in ((size, module.patch_size), (images, 1)):
        if type(side) is not int or not 1 <= side <= _LARGEST or side % step:
            raise ValueError(f"its network cannot take images of {side} px.")
    for colour in (mean, std):
        numbers = [x for x in colour if isinstance(x, int | float) and math.isfinite(x)]
        if len(colour) != 3 or len(numbers) != 3 or min(std) <= 0:
            raise ValueError(
                "mean and std must have three finite numbers each, positive ones for std."
            )


def describe(backbone: Backbone) -> str:
    """Describe a backbone, its images, and what in its file was left out."""
    info, kind = backbone.info, backbone.module.describe()
    colours = [", ".join(f"{x:g}" for x in c) for c in (backbone.mean, backbone.std)]
    guessed = info.get("guessed")
    text = (
        f"{'Recognised as a' if guessed else 'A'} {kind}; images of {backbone.size} px"
    )
    text += ", mean ({}), standard deviation ({})".format(*colours)
    if network := info.get("network"):
        text += f"; its names begin with {network}"
    if left_out := info.get("left_out"):
        more = ", …" if len(left_out) > 3 else ""
        text += f"; {len(left_out)} left out: {', '.join(left_out[:3])}{more}"
    return f"{text}."
