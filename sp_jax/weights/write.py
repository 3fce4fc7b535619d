"""Weights as files for other libraries: safetensors, PyTorch, Detectron2, transformers."""

import collections
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


def check_target(path: str | os.PathLike, naming: str | None = None) -> pathlib.Path:
    """Check where weights are to be written, before any work is done.

    Raises:
        UserError: the suffix does not fit the naming, the folder holds other things, or
            PyTorch is needed and missing.
    """
    path = pathlib.Path(path)
    if path.suffix not in (*_WRITERS, ""):
        raise UserError(
            f"{path} must end in {', '.join(_WRITERS)}, or be a folder for transformers."
        )
    if naming is not None:
        if (path.suffix == ".pkl") != (naming == "detectron2"):
            raise UserError("Detectron2 reads .pkl, and its naming is for .pkl only.")
        if path.suffix == "" and naming != "huggingface":
            raise UserError(
                f"A folder is for transformers (huggingface): give {path} a suffix, one of "
                f"{', '.join(_WRITERS)}."
            )
    if path.suffix == "" and path.exists():
        if not path.is_dir():
            raise UserError(f"{path} is a file: give a new folder.")
        # A run's folder has a config.json, too.
        if any(path.iterdir()) and not (path / "model.safetensors").is_file():
            raise UserError(f"{path} holds other things: give a new folder.")
    if path.suffix and path.is_dir():
        raise UserError(f"{path} is a folder: give the name of a new file.")
    if path.suffix == ".pth":
        import_torch()
    return path


def save(backbone: Backbone, path: str | os.PathLike, naming: str) -> pathlib.Path:
    """Write the weights of a backbone; each file is written whole or not at all.

    Args:
        backbone: what to write.
        path: a file that ends in .safetensors, .pth (a state dict, by PyTorch) or .pkl
            (for Detectron2); or, for "huggingface", a folder for `from_pretrained`, in which
            `model.safetensors`, `config.json` and `preprocessor_config.json` are written.
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
    data = config.get("data", {})
    about = {
        "module": kind.description(backbone.module),
        "size": backbone.size,
        "mean": list(backbone.mean),
        "std": list(backbone.std),
        "naming": naming,
        # A file that is exported again says what the first one said.
        "method": config.get("method", backbone.info.get("method")),
        "step": backbone.info.get("step"),
        "images": {k: data[k] for k in ("image_size", "resize") if k in data}
        or backbone.info.get("images"),
    }
    # safetensors and PyTorch make bytes, and do not write: their errors have no cause.
    if path.suffix:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, _WRITERS[path.suffix](state, about))
        return path
    path.mkdir(parents=True, exist_ok=True)
    write_bytes(path / "model.safetensors", _safetensors(state, about))
    settings = {
        "config.json": kind.hugging_face_config(backbone.module),
        "preprocessor_config.json": _preprocessor(backbone),
    }
    for name, content in settings.items():
        write_text(path / name, json.dumps(content, indent=2) + "\n")
    return path


def _safetensors(state: State, about: Mapping) -> bytes:
    # transformers asks for the layout of which framework it is.
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
    """Arrays that each NumPy reads: as its version 2 pickles them, 1.25 does not."""

    def reducer_override(self, value):
        if not isinstance(value, np.ndarray):
            return NotImplemented
        content = bytearray(value.tobytes())
        return np.ndarray, (value.shape, value.dtype.str, content)


_WRITERS = {".safetensors": _safetensors, ".pth": _pth, ".pkl": _pkl}


def _preprocessor(backbone: Backbone) -> dict[str, Any]:
    """The content of transformers' preprocessor_config.json."""
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": backbone.size, "width": backbone.size},
        "resample": 2,  # bilinear
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(backbone.mean),
        "image_std": list(backbone.std),
    }
