"""Arrays in a file of weights, by name, and the file's description of them."""

import argparse
import json
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import safetensors

from sp_jax.errors import UserError
from sp_jax.weights.find import Shapes

KEY = "sp_jax"  # of a file's own description, in JSON
TORCH = (".pth", ".pt", ".tar", ".bin", ".ckpt")
_NESTED = 16  # dicts in dicts, at most
# What a file may say of itself. The network is compared with the arrays, in read.py.
_ABOUT = {"module": dict, "size": int, "mean": list, "std": list}
_ABOUT |= {"images": dict, "method": str, "step": int}


class Tensors(NamedTuple):
    """What is in a file.

    Attributes:
        shapes: of all arrays, by name.
        get: returns one floating-point array, from bfloat16 to float64, by its name; raises
            ValueError for every other kind of number and of storage.
        about: the file's own description; its values have the types of JSON.
    """

    shapes: Shapes
    get: Callable[[str], np.ndarray]
    about: Mapping[str, Any]


def read(path: pathlib.Path) -> Tensors:
    """Read the names, and the arrays when they are asked for.

    Raises:
        UserError: PyTorch is needed and missing.
        ValueError: it is damaged, or not a file of weights.
        OSError: it cannot be read.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in TORCH:
        return _read_torch(path)
    raise ValueError(
        f"give a run's folder, or a file that ends in .safetensors, {', '.join(TORCH)}."
    )


def _read_safetensors(path: pathlib.Path) -> Tensors:
    try:
        file = safetensors.safe_open(path, "numpy")
        slices = {name: file.get_slice(name) for name in file.keys()}
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        kinds = {name: part.get_dtype() for name, part in slices.items()}
        about = _parse((file.metadata() or {}).get(KEY, "{}"))
    except safetensors.SafetensorError as error:
        raise ValueError(f"it is damaged ({error}).") from error

    def get(name: str) -> np.ndarray:
        # Weights of 8 bits and less are stored with a scale beside them.
        if kinds[name] not in ("F64", "F32", "F16", "BF16"):
            raise _no_number(name, kinds[name])
        return file.get_tensor(name)

    return Tensors(shapes, get, about)


def _read_torch(path: pathlib.Path) -> Tensors:
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
        raise ValueError("it is damaged, or not a file of PyTorch.") from error
    tensors = _flatten(content, torch.Tensor)
    floats = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

    def get(name: str) -> np.ndarray:
        value = tensors[name].detach().resolve_neg()
        plain = value.layout is torch.strided and value.device.type == "cpu"
        if not plain or value.is_quantized or value.is_nested:
            raise _no_number(name, "sparse, nested, quantised or without values")
        if value.dtype not in floats:
            raise _no_number(name, str(value.dtype).removeprefix("torch."))
        if value.nbytes > value.untyped_storage().nbytes():
            raise ValueError(f"{name} claims more numbers than the file holds.")
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()

    shapes = {n: () if v.is_nested else tuple(v.shape) for n, v in tensors.items()}
    return Tensors(shapes, get, _parse(getattr(content, KEY, "{}")))


def _flatten(content: Any, kind: type) -> dict[str, Any]:
    """The arrays of nested dicts, such as {"state_dict": {"conv1.weight": …}}."""
    found, seen, waiting = {}, set(), [("", content, 0)]
    for prefix, part, depth in waiting:  # which grows
        # A dict in several places counts once, even if it contains itself.
        if not isinstance(part, dict) or id(part) in seen or depth > _NESTED:
            continue
        seen.add(id(part))
        for name, value in part.items():
            if isinstance(value, kind):
                found[f"{prefix}{name}"] = value
            elif isinstance(name, str):
                waiting.append((f"{prefix}{name}.", value, depth + 1))
    return found


def _no_number(name: str, kind: str) -> ValueError:
    return ValueError(
        f"{name} is {kind}: give plain floating-point weights of 16, 32 or 64 bits."
    )


def _parse(text: Any) -> dict[str, Any]:
    """A file's own description, from JSON."""
    try:
        about = json.loads(text)
        said = {key: about[key] for key in _ABOUT if about.get(key) is not None}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"its description ({KEY}) is damaged.") from error
    for key, value in said.items():
        if not isinstance(value, _ABOUT[key]) or isinstance(value, bool):
            raise ValueError(f"its description ({KEY}) has a wrong {key}.")
    return about


def import_torch():
    """PyTorch, which only its own files need; UserError if it is missing or too old."""
    try:
        import torch

        torch.serialization.safe_globals  # noqa: B018 since 2.5
    except (ImportError, OSError, AttributeError):  # OSError: a library is missing
        raise UserError(
            "This file needs PyTorch 2.5 or newer (pip install torch); a .safetensors file "
            "does not."
        ) from None
    return torch
