"""Weights as files for other libraries: safetensors, PyTorch, Detectron2, transformers."""

import collections
import contextlib
import io
import json
import os
import pathlib
import pickle
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import numpy as np
import safetensors.numpy

from sp_jax.backbone import Backbone
from sp_jax.errors import UserError
from sp_jax.models.vit import ViT
from sp_jax.weights.libraries import check_naming, hugging_face_config, rename
from sp_jax.weights.names import State, to_torch
from sp_jax.weights.tensors import KEY, import_torch

_VIT_FIELDS = (
    *("dim", "depth", "heads", "mlp_ratio", "patch_size", "image_size", "position"),
)


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

    Returns:
        The path.

    Raises:
        UserError: the suffix or the naming does not fit, or PyTorch is missing.
        OSError: it cannot be written; what was there before is untouched.
    """
    path = check_target(path, naming)
    try:
        check_naming(backbone.module, naming)
    except ValueError as error:
        raise UserError(f"This backbone cannot be exported: {error}") from error
    state = to_torch(backbone.module, backbone.variables)
    state = rename(backbone.module, state, naming)
    config = backbone.info.get("config", {})
    data = config.get("data", {})
    about = {
        "module": describe_module(backbone.module),
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
    if path.suffix:
        _write({path: _WRITERS[path.suffix](state, about)})
        return path
    settings = {
        "config.json": hugging_face_config(backbone.module),
        "preprocessor_config.json": _preprocessor(backbone),
    }
    files = {path / "model.safetensors": _safetensors(state, about)}
    for name, content in settings.items():
        files[path / name] = (json.dumps(content, indent=2) + "\n").encode()
    _write(files)
    return path


def _write(files: Mapping[pathlib.Path, bytes]) -> None:
    """Temporary files beside them, and when all are whole, renames.

    safetensors and PyTorch make bytes, and do not write: their errors have no cause.
    """
    temporary = {}
    try:
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with (
                _about(path),
                tempfile.NamedTemporaryFile(
                    dir=path.parent, prefix=".", delete=False
                ) as file,
            ):
                temporary[path] = file.name
                file.write(content)
        for path, name in temporary.items():
            with _about(path):
                os.chmod(name, 0o644)  # tempfile makes it private
                os.replace(name, path)
    finally:
        for name in temporary.values():
            pathlib.Path(name).unlink(missing_ok=True)


@contextlib.contextmanager
def _about(path: pathlib.Path) -> Iterator[None]:
    """An error of the system names the file that is asked for, and no temporary one."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _safetensors(state: State, about: Mapping) -> bytes:
    # transformers asks for the layout of which framework it is.
    metadata = {"format": "pt", KEY: json.dumps(about)}
    return safetensors.numpy.save(state, metadata)


def _pth(state: State, about: Mapping) -> bytes:
    torch = import_torch()
    # An attribute of the dict is saved with it, and no library looks at it.
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
        if isinstance(value, np.ndarray):
            return np.ndarray, (
                value.shape,
                value.dtype.str,
                bytearray(value.tobytes()),
            )
        return NotImplemented


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
