"""Weights from files: our own, and those of torchvision, timm and transformers."""

import argparse
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import safetensors

from sp_jax.augment.config import IMAGENET_MEAN, IMAGENET_STD
from sp_jax.backbone import Backbone, Colour
from sp_jax.errors import UserError
from sp_jax.models.vit import ViT
from sp_jax.recipe import compute_dtype
from sp_jax.weights import guess
from sp_jax.weights.libraries import from_hugging_face, plain_name
from sp_jax.weights.names import State, from_torch, owned_names
from sp_jax.weights.write import KEY, build_module, import_torch

_TORCH = (".pth", ".pt", ".tar", ".bin", ".ckpt")


def load(
    path: str | os.PathLike,
    *,
    heads: int | None = None,
    size: int | None = None,
    mean: Colour | None = None,
    std: Colour | None = None,
) -> Backbone:
    """Load a backbone from a file: ours, torchvision's, timm's or transformers'.

    A .safetensors or .pth that `save` wrote says what it holds. Of others the network is
    guessed from names and shapes; prefixes such as "module." or "encoder_q." go, and so does
    what is no backbone, such as a classifier.

    Args:
        path: .safetensors, or .pth, .pt, .tar, .bin and .ckpt, which need PyTorch.
        heads: of a ViT; see `guess_module`.
        size: side of the images in pixels. By default what the file says, else 224 for a
            ResNet, and what its positions are for, of a ViT.
        mean: of each channel; by default what the file says, else ImageNet's.
        std: likewise.

    Returns:
        The backbone. Its info has "guessed" (whether the file did not say what it holds),
        "left_out" (names in it that are not of the backbone), "images" (how they are
        prepared: "image_size", "resize"), "method" and "step" (None and 0 if not known).

    Raises:
        UserError: the file cannot be read, or holds no network that is known here.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    try:
        tensors, about = _read(path)
        prefix, first = guess.find_network(tensors)
        own = {n: n.removeprefix(prefix) for n in tensors if n.startswith(prefix)}
        plain = {short: tensors[name] for name, short in own.items()}
        foreign = first in guess.HUGGING_FACE
        if foreign:
            plain = from_hugging_face(plain)
        state = guess.fold_layer_scale(plain)
        dtype = compute_dtype("auto")
        if "module" in about and heads is None:
            module = build_module(about["module"], dtype)
        else:
            module = guess.guess_module(state, dtype, heads)
        known = owned_names(module)
        guess.check_extra(state.keys() - known)
        variables = from_torch(module, state)
        size = size or about.get("size") or getattr(module, "image_size", 224)
        _check(module, size, mean, std)
    except ValueError as error:
        raise UserError(f"{path} cannot be used: {error}") from error
    used = known | (plain.keys() - state.keys())
    rename = plain_name if foreign else str
    left_out = [
        name
        for name in sorted(tensors)
        if name not in own or rename(own[name]) not in used
    ]
    return Backbone(
        module,
        variables,
        size=size,
        mean=tuple(mean or about.get("mean") or IMAGENET_MEAN),
        std=tuple(std or about.get("std") or IMAGENET_STD),
        info={
            "path": str(path),
            "guessed": "module" not in about,
            "left_out": left_out,
            "images": about.get("images") or {"image_size": size, "resize": "crop"},
            "method": about.get("method"),
            "step": about.get("step") or 0,
        },
    )


def _check(module: Any, size: int, *colours: Colour | None) -> None:
    if size < 1 or (isinstance(module, ViT) and size % module.patch_size):
        raise ValueError(f"its network takes no images of {size} px.")
    if any(colour is not None and len(colour) != 3 for colour in colours):
        raise ValueError("mean and std are three numbers each.")


def describe(backbone: Backbone) -> str:
    """What a backbone is, what its images are, and what of its file it is not."""
    module, info = backbone.module, backbone.info
    if isinstance(module, ViT):
        kind = (
            f"ViT of {module.depth} blocks, width {module.dim}, {module.heads} heads, "
            f"patches of {module.patch_size} px"
        )
    else:
        kind = (
            f"ResNet of {sum(module.stage_sizes)} blocks ({module.block.__name__}), "
            f"width {module.width}, {module.stem} stem"
        )
    colours = [", ".join(f"{x:g}" for x in c) for c in (backbone.mean, backbone.std)]
    guessed = info.get("guessed")
    text = f"{'Taken for a' if guessed else 'A'} {kind}; images of {backbone.size} px"
    text += ", mean ({}), deviation ({})".format(*colours)
    if left_out := info.get("left_out"):
        more = ", …" if len(left_out) > 3 else ""
        text += f"; {len(left_out)} left out: {', '.join(left_out[:3])}{more}"
    return f"{text}."


def _read(path: pathlib.Path) -> tuple[State, Mapping[str, Any]]:
    """Arrays by name, and what the file says of them."""
    if path.suffix == ".safetensors":
        try:
            with safetensors.safe_open(path, "numpy") as file:
                about = json.loads((file.metadata() or {}).get(KEY, "{}"))
                return {name: file.get_tensor(name) for name in file.keys()}, about
        except safetensors.SafetensorError as error:
            raise ValueError(f"it is damaged ({error}).") from error
    if path.suffix not in _TORCH:
        raise ValueError(
            f"give a run's folder, or a file that ends in .safetensors, {', '.join(_TORCH)}."
        )
    torch = import_torch()
    try:
        # Nothing but arrays: a pickle may run any code. Official checkpoints hold their
        # command line besides, which has none.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        if found := re.search(r"Unsupported global: GLOBAL (\S+)", str(error)):
            raise ValueError(
                f"it holds {found[1]} besides arrays, and such objects may run any code: "
                "save its state dict alone."
            ) from error
        raise ValueError("it is damaged, or no file of PyTorch.") from error
    tensors: State = {}
    _flatten(content, "", tensors, torch)
    return tensors, json.loads(getattr(content, KEY, "{}"))


def _flatten(content: Any, prefix: str, tensors: State, torch: Any) -> None:
    """Collect the arrays of nested dicts, such as {"state_dict": {"conv1.weight": …}}."""
    if not isinstance(content, dict):
        return
    for name, value in content.items():
        if isinstance(value, torch.Tensor):
            value = value.detach()
            value = value.float() if value.is_floating_point() else value
            tensors[f"{prefix}{name}"] = value.numpy()
        elif isinstance(name, str):
            _flatten(value, f"{prefix}{name}.", tensors, torch)
