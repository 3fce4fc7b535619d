"""Weights as files: safetensors, PyTorch's state dicts, Detectron2's pickles."""

import json
import os
import pathlib
import pickle
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import safetensors
import safetensors.numpy

from input_pipeline.errors import UserError
from sp_jax.augment.config import IMAGENET_MEAN, IMAGENET_STD
from sp_jax.backbone import Backbone
from sp_jax.models.resnet import BasicBlock, Bottleneck, ResNet
from sp_jax.models.vit import ViT
from sp_jax.recipe import compute_dtype
from sp_jax.weights.guess import guess_module, strip_prefix
from sp_jax.weights.names import State, from_torch, owned_names, rename, to_torch

SUFFIXES = (".safetensors", ".pth", ".pkl")
_KEY = "sp_jax"  # of the metadata, JSON
_VIT_FIELDS = (
    *("dim", "depth", "heads", "mlp_ratio", "patch_size", "image_size", "position"),
)
# Wrappers that training code puts around a state dict.
_WRAPPERS = ("state_dict", "model", "teacher", "student")


def describe_module(module: nn.Module) -> dict[str, Any]:
    """What is needed to build a backbone again, for JSON."""
    if isinstance(module, ViT):
        return {"kind": "vit", **{name: getattr(module, name) for name in _VIT_FIELDS}}
    return {
        "kind": "resnet",
        "stage_sizes": list(module.stage_sizes),
        "block": module.block.__name__,
        "width": module.width,
        "stem": module.stem,
    }


def build_module(description: Mapping[str, Any], dtype: Any) -> nn.Module:
    """The backbone that `describe_module` described."""
    fields = dict(description)
    if fields.pop("kind") == "vit":
        return ViT(**fields, dtype=dtype)
    blocks = {"BasicBlock": BasicBlock, "Bottleneck": Bottleneck}
    return ResNet(
        tuple(fields.pop("stage_sizes")),
        blocks[fields.pop("block")],
        **fields,
        dtype=dtype,
    )


def save(backbone: Backbone, path: str | os.PathLike, naming: str) -> pathlib.Path:
    """Write the weights of a backbone, whole or not at all.

    Args:
        backbone: what to write.
        path: a file that ends in .safetensors, .pth (a state dict, by PyTorch) or .pkl
            (for Detectron2).
        naming: one of `NAMINGS`.

    Returns:
        The path.

    Raises:
        UserError: the suffix or the naming does not fit, or PyTorch is missing.
    """
    path = pathlib.Path(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path} must end in {', '.join(SUFFIXES)}.")
    if (path.suffix == ".pkl") != (naming == "detectron2"):
        raise UserError("Detectron2 reads .pkl, and its naming is for .pkl only.")
    try:
        state = rename(
            backbone.module, to_torch(backbone.module, backbone.variables), naming
        )
    except ValueError as error:
        raise UserError(f"This backbone cannot be exported: {error}") from error
    about = {
        "module": describe_module(backbone.module),
        "size": backbone.size,
        "mean": list(backbone.mean),
        "std": list(backbone.std),
        "naming": naming,
        "method": backbone.info.get("config", {}).get("method"),
        "step": backbone.info.get("step"),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.suffix == ".safetensors":
            # transformers asks for the layout of which framework it is.
            metadata = {"format": "pt", _KEY: json.dumps(about)}
            safetensors.numpy.save_file(state, temporary, metadata)
        elif path.suffix == ".pth":
            torch = _torch()
            tensors = {name: torch.from_numpy(value) for name, value in state.items()}
            torch.save(tensors, temporary)
        else:
            content = {
                "model": state,
                "__author__": "sp_jax",
                "matching_heuristics": True,
            }
            temporary.write_bytes(pickle.dumps(content))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def load(path: str | os.PathLike) -> Backbone:
    """Load a backbone from a file of weights: our own, torchvision's or timm's.

    Files that `save` wrote as .safetensors in torchvision's or timm's naming say what network
    they hold. Of others it is guessed from names and shapes; prefixes such as "module." or
    "encoder_q." go, and so does what is no backbone, such as a classifier.

    Args:
        path: .safetensors, or .pth, .pt, .tar and .bin, which need PyTorch.

    Returns:
        The backbone. Where the file does not say them, `mean` and `std` are ImageNet's, and
        `size` is 224 for a ResNet, and what its positions are for, of a ViT. Its info has
        "left_out", names in the file that are not of the backbone, and "step" (0 if not
        known).

    Raises:
        UserError: the file cannot be read, or holds no network that is known here.
    """
    path = pathlib.Path(path)
    try:
        state, about = _read(path)
        if about.get("naming") not in (None, "torchvision", "timm"):
            raise ValueError(
                f"it has the names of {about['naming']}: export it in torchvision's or timm's"
            )
        dtype = compute_dtype("auto")
        prefix = strip_prefix(state)
        own = {
            name.removeprefix(prefix): value
            for name, value in state.items()
            if name.startswith(prefix)
        }
        if "module" in about:
            module = build_module(about["module"], dtype)
        else:
            module = guess_module(own, dtype)
        variables = from_torch(module, own)
    except ValueError as error:
        raise UserError(f"{path} cannot be used: {error}") from error
    left_out = set(state) - {prefix + name for name in owned_names(module)}
    side = getattr(module, "image_size", 224)
    return Backbone(
        module,
        variables,
        size=about.get("size", side),
        mean=tuple(about.get("mean", IMAGENET_MEAN)),
        std=tuple(about.get("std", IMAGENET_STD)),
        info={
            "path": str(path),
            "left_out": sorted(left_out),
            **about,
            "step": about.get("step") or 0,
        },
    )


def _read(path: pathlib.Path) -> tuple[State, dict[str, Any]]:
    """Arrays by name, and what the file says of them."""
    if path.suffix == ".safetensors":
        try:
            with safetensors.safe_open(path, "numpy") as file:
                about = json.loads((file.metadata() or {}).get(_KEY, "{}"))
                return {name: file.get_tensor(name) for name in file.keys()}, about
        except safetensors.SafetensorError as error:
            raise ValueError(f"it is damaged ({error})") from error
    if path.suffix not in (".pth", ".pt", ".tar", ".bin"):
        raise ValueError(
            "give a run's folder, or a file that ends in .safetensors, .pth, .pt, .tar or "
            ".bin"
        )
    torch = _torch()
    try:
        # Nothing but arrays: a pickle may run any code.
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"PyTorch does not read it ({reason})") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict):
        raise ValueError("it holds no state dict")
    return {
        name: value.to(torch.float32).numpy()
        if value.is_floating_point()
        else value.numpy()
        for name, value in content.items()
        if isinstance(value, torch.Tensor)
    }, {}


def _torch():
    try:
        import torch
    except ImportError:
        raise UserError(
            "This file needs PyTorch (pip install torch); .safetensors needs nothing."
        ) from None
    return torch
