"""Weights as files for other libraries: safetensors, PyTorch, Detectron2, transformers."""

import collections
import hashlib
import io
import json
import os
import pathlib
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from sp_jax.backbone import Backbone
from sp_jax.errors import UserError
from sp_jax.files import write_bytes, write_text
from sp_jax.weights.families import family
from sp_jax.weights.names import State
from sp_jax.weights.state_dict import rename, to_torch
from sp_jax.weights.tensors import KEY, import_torch

CARD = "README.md"
_SETTINGS = ("config.json", "preprocessor_config.json")


def check_target(path: str | os.PathLike, naming: str | None = None) -> pathlib.Path:
    """Check where weights are to be written, before any work is done.

    Raises:
        UserError: the suffix does not fit the naming, the path holds something that is not
            an export, or PyTorch is needed and missing.
    """
    path = pathlib.Path(path)
    if path.suffix not in (*_WRITERS, ""):
        raise UserError(f"{path} must end in {', '.join(_WRITERS)}, or be a folder.")
    if naming is not None:
        if (path.suffix == ".pkl") != (naming == "detectron2"):
            raise UserError(
                "The naming detectron2 is for .pkl only, and .pkl needs it: give both or "
                "neither."
            )
    if path.suffix == "" and path.exists():
        if not path.is_dir():
            raise UserError(f"{path} is a file: give a new folder.")
        # A run's folder has a config.json, too.
        if any(path.iterdir()) and not (path / "model.safetensors").is_file():
            raise UserError(f"{path} holds other files: give a new folder.")
    if path.suffix and path.is_dir():
        raise UserError(f"{path} is a folder: give the name of a new file.")
    file = path if path.suffix else path / "model.safetensors"
    if file.is_file() and KEY.encode() not in file.read_bytes():
        raise UserError(f"{file} exists and is not an export: choose another --out.")
    if not path.suffix and (card := path / CARD).is_file():
        text, _, _ = card.read_bytes().decode("utf-8", "replace").rpartition("\n<!--")
        if card.read_bytes() != _signed(text).encode():
            raise UserError(
                f"{card} was written or changed by hand: move it away, or choose another "
                "--out."
            )
    if path.suffix == ".pth":
        import_torch()
    return path


def save(backbone: Backbone, path: str | os.PathLike, naming: str) -> pathlib.Path:
    """Write the weights of a backbone; each file is written whole or not at all.

    Args:
        backbone: what to write.
        path: a file that ends in .safetensors, .pth (a state dict, by PyTorch) or .pkl
            (for Detectron2); or a folder, in which `model.safetensors` is written, and what
            transformers or, by its names, timm needs beside it.
        naming: one of `NAMINGS`.

    Raises:
        UserError: the suffix or the naming does not fit, or PyTorch is missing.
        OSError: it cannot be written; what was there before is untouched.
    """
    path = check_target(path, naming)
    kind = family(backbone.module)
    state = to_torch(backbone.module, backbone.variables)
    state = rename(backbone.module, state, naming)
    config = backbone.info.get("config", {})
    image_size, resize = backbone.stored
    about = {
        "module": kind.description(backbone.module),
        "size": backbone.size,
        "mean": list(backbone.mean),
        "std": list(backbone.std),
        "naming": naming,
        # A file that is exported again says what the first one said.
        "method": config.get("method", backbone.info.get("method")),
        "step": backbone.info.get("step"),
        "images": {"image_size": image_size, "resize": resize},
    }
    # safetensors and PyTorch make bytes, and do not write: their errors have no cause.
    if path.suffix:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, _WRITERS[path.suffix](state, about))
        return path
    path.mkdir(parents=True, exist_ok=True)
    write_bytes(path / "model.safetensors", _safetensors(state, about))
    settings = _settings(backbone, naming)
    for name, content in settings.items():
        write_text(path / name, json.dumps(content, indent=2) + "\n")
    for name in {*_SETTINGS, CARD} - settings.keys():  # of an earlier export
        (path / name).unlink(missing_ok=True)
    return path


def write_card(folder: pathlib.Path, text: str) -> None:
    """Write the model card of an exported folder, which `check_target` recognises."""
    write_text(folder / CARD, _signed(text))


def _signed(text: str) -> str:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{text}\n<!-- written by sp_jax.export: {digest} -->\n"


def _safetensors(state: State, about: Mapping) -> bytes:
    # transformers asks which framework's layout it is.
    metadata = {"format": "pt", KEY: json.dumps(about)}
    return safetensors.numpy.save(state, metadata)


def _pth(state: State, about: Mapping) -> bytes:
    torch = import_torch()
    # An attribute of an OrderedDict is saved with it, and no library looks at it.
    tensors = collections.OrderedDict(
        (name, torch.tensor(value)) for name, value in state.items()
    )
    setattr(tensors, KEY, json.dumps(about))
    file = io.BytesIO()
    torch.save(tensors, file)
    return file.getvalue()


def _pkl(state: State, about: Mapping) -> bytes:
    content = {"model": state, "__author__": "sp_jax", "matching_heuristics": True}
    file = io.BytesIO()
    _Pickler(file, protocol=4).dump(content)
    return file.getvalue()


class _Pickler(pickle.Pickler):
    """Pickles arrays for every NumPy: 1.25 cannot read those that version 2 pickles."""

    def reducer_override(self, value):
        if not isinstance(value, np.ndarray):
            return NotImplemented
        content = bytearray(value.tobytes())
        return np.ndarray, (value.shape, value.dtype.str, content)


_WRITERS = {".safetensors": _safetensors, ".pth": _pth, ".pkl": _pkl}


def _settings(backbone: Backbone, naming: str) -> dict[str, dict[str, Any]]:
    """The files beside the weights in a folder, by name."""
    kind, size = family(backbone.module), backbone.size
    crop = backbone.stored[1] == "crop"
    colours = list(backbone.mean), list(backbone.std)
    if naming == "huggingface":
        squashed = {"height": size, "width": size}
        images = {
            "image_processor_type": "BitImageProcessor"
            if crop
            else "ViTImageProcessor",
            "do_resize": True,
            "size": {"shortest_edge": size} if crop else squashed,
            "do_center_crop": crop,
            "crop_size": squashed,
            "resample": 3,  # bicubic
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
        }
        images |= zip(("image_mean", "image_std"), colours, strict=True)
        contents = kind.hugging_face_config(backbone.module), images
        return dict(zip(_SETTINGS, contents, strict=True))
    config = kind.timm_config(backbone.module)
    if config is None:
        return {}
    images = {
        "input_size": [3, size, size],
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": "center" if crop else "squash",
    }
    images |= zip(("mean", "std"), colours, strict=True)
    return {"config.json": config | {"num_classes": 0, "pretrained_cfg": images}}
