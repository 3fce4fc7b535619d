"""A folder of transformers: its file of weights, and the settings beside it."""

import os
import pathlib
from typing import Any

from sp_jax.json_file import read_json

_FILES = ("model.safetensors", "pytorch_model.bin")
# Of transformers' ResNets and ViTs: what ours do.
_OURS = {
    "hidden_act": ("gelu", "relu"),
    "downsample_in_bottleneck": (False,),
    "qkv_bias": (True,),
}


def find_file(path: str | os.PathLike) -> pathlib.Path | None:
    """A file of weights, or the one in a folder of transformers; None where there is none."""
    path = pathlib.Path(path)
    if path.is_file():
        return path
    if (path / "checkpoints").is_dir():  # a run's
        return None
    return next((path / name for name in _FILES if (path / name).is_file()), None)


def folder_says(file: pathlib.Path) -> dict[str, Any]:
    """Read the settings beside a file of transformers: "heads", "size", "mean", "std".

    Raises:
        ValueError: they are damaged, or no network here computes the same.
    """
    if file.name not in _FILES:
        return {}
    config, images = (
        read_json(path) if (path := file.with_name(name)).is_file() else {}
        for name in ("config.json", "preprocessor_config.json")
    )
    if config.get("model_type") not in ("vit", "resnet", "dinov2"):
        return {}
    for key, known in _OURS.items():
        if config.get(key, known[0]) not in known:
            raise ValueError(
                f"its config.json says {key}={config[key]!r}; ours has {known[0]!r}."
            )
    said = {
        "heads": config.get("num_attention_heads"),
        "size": size if isinstance(size := config.get("image_size"), int) else None,
        "mean": images.get("image_mean"),
        "std": images.get("image_std"),
    }
    return {key: value for key, value in said.items() if value is not None}
