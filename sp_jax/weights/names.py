"""Names and layouts of parameters, here and in PyTorch's libraries.

Our modules carry torchvision's names (ResNet) and timm's (ViT), so the way there is a rule:
`layer1_0/conv1/kernel` [k, k, in, out] is `layer1.0.conv1.weight` [out, in, k, k]. Other
libraries' names follow from these.
"""

import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sp_jax.models.resnet import ResNet
from sp_jax.models.vit import ViT, sincos_position

PyTree = Any
State = dict[str, np.ndarray]

# torchvision's names are timm's for the same ResNets, and a ViT has timm's in both.
NAMINGS = ("torchvision", "timm", "huggingface", "detectron2")

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def to_torch(module: nn.Module, variables: PyTree) -> State:
    """A state dict with the names and layouts of torchvision (ResNet) or timm (ViT).

    Args:
        module: the backbone, a `ResNet` or `ViT`.
        variables: its "params" and "batch_stats".

    Returns:
        Arrays by name, float32; a ResNet's counters of batches are int64 zeros. A fixed
        position embedding is written as the parameter that timm has in its place.

    Example:
        >>> from sp_jax import models
        >>> net = models.get("resnet18", width=4)
        >>> variables = net.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), False)
        >>> to_torch(net, variables)["layer1.0.conv2.weight"].shape
        (4, 4, 3, 3)
    """
    state = {}
    for path, value in jax.tree_util.tree_flatten_with_path(variables)[0]:
        name = _torch_name(path)
        state[name] = _turn(path, np.asarray(value, np.float32))
        if name.endswith("running_var"):
            counter = name.replace("running_var", "num_batches_tracked")
            state[counter] = np.zeros((), np.int64)
    if isinstance(module, ViT) and module.position == "sincos":
        side = module.image_size // module.patch_size
        table = sincos_position(side, side, module.dim)
        state["pos_embed"] = table.astype(np.float32)
    return state


def from_torch(module: nn.Module, state: Mapping[str, np.ndarray]) -> PyTree:
    """The variables of a backbone from such a state dict.

    Args:
        module: the backbone that they are for.
        state: arrays by torchvision's or timm's names. Names that the backbone does not
            have are ignored.

    Returns:
        "params" and "batch_stats", float32 NumPy arrays.

    Raises:
        ValueError: names are missing, or shapes differ.
    """
    side = getattr(module, "image_size", 64)
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    shapes = jax.eval_shape(
        lambda key, x: module.init(key, x, False), jax.random.key(0), images
    )
    missing, wrong = [], []

    def take(path, wanted):
        name = _torch_name(path)
        if name not in state:
            missing.append(name)
            return None
        value = _turn(path, np.asarray(state[name], np.float32), back=True)
        if value.shape != wanted.shape:
            wrong.append(f"{name} {list(state[name].shape)}")
            return None
        return value

    variables = jax.tree_util.tree_map_with_path(take, shapes)
    if missing or wrong:
        found = [f"{len(missing)} are missing, such as {missing[0]}"] if missing else []
        if wrong:
            found.append(f"{len(wrong)} have another shape, such as {wrong[0]}")
        raise ValueError(f"The weights do not fit the network: {'; '.join(found)}.")
    return {"batch_stats": {}, **variables}


def owned_names(module: nn.Module) -> set[str]:
    """The names that `to_torch` gives for a module, without making parameters."""
    side = getattr(module, "image_size", 64)
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    shapes = jax.eval_shape(
        lambda key, x: module.init(key, x, False), jax.random.key(0), images
    )
    names = {
        _torch_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(shapes)[0]
    }
    names |= {n.replace("running_var", "num_batches_tracked") for n in names}
    # timm has a parameter in the place of a fixed embedding.
    return names | ({"pos_embed"} if isinstance(module, ViT) else set())


def _torch_name(path) -> str:
    collection, *parts, leaf = (part.key for part in path)
    del collection
    names = [re.sub(r"^(layer\d|downsample)_(\d+)$", r"\1.\2", part) for part in parts]
    names = [re.sub(r"^block(\d+)$", r"blocks.\1", part) for part in names]
    return ".".join([*names, _LEAVES.get(leaf, leaf)])


def _turn(path, value: np.ndarray, back: bool = False) -> np.ndarray:
    """A kernel between [k, k, in, out] or [in, out] and [out, in, k, k] or [out, in]."""
    if path[-1].key != "kernel":
        return value
    if value.ndim == 4:
        value = value.transpose(2, 3, 1, 0) if back else value.transpose(3, 2, 0, 1)
    else:
        value = value.T
    return np.ascontiguousarray(value)


def rename(module: nn.Module, state: State, naming: str) -> State:
    """A state dict of `to_torch` in the names of another library.

    Args:
        module: the backbone.
        state: from `to_torch`.
        naming: one of `NAMINGS`: "huggingface" is `ResNetModel` or `ViTModel` of
            transformers, "detectron2" its ResNet backbone (as MoCo's converter writes).

    Raises:
        ValueError: the naming is unknown, or the library has no such network.
    """
    if naming not in NAMINGS:
        known = ", ".join(NAMINGS)
        raise ValueError(f"There is no naming {naming!r}; choose one of: {known}.")
    if naming in ("torchvision", "timm"):
        if naming == "torchvision" and isinstance(module, ViT):
            raise ValueError("torchvision's ViTs differ from timm's: choose timm.")
        return state
    if isinstance(module, ResNet) and module.stem != "imagenet":
        raise ValueError(f"{naming} has no ResNet with a small stem.")
    if naming == "detectron2":
        if not isinstance(module, ResNet):
            raise ValueError("detectron2's naming is for ResNets.")
        return {
            _detectron(name): value
            for name, value in state.items()
            if not name.endswith("num_batches_tracked")
        }
    if isinstance(module, ResNet):
        return {_hf_resnet(name): value for name, value in state.items()}
    renamed = {}
    for name, value in state.items():
        if ".qkv." in name:
            # Separate layers there.
            for part, third in zip(
                ("query", "key", "value"), np.split(value, 3), strict=True
            ):
                renamed[_hf_vit(name.replace("qkv", part))] = third
        else:
            renamed[_hf_vit(name)] = value
    return renamed


def _detectron(name: str) -> str:
    for stage in range(1, 5):
        name = name.replace(f"layer{stage}.", f"res{stage + 1}.")
    if not name.startswith("res"):
        name = f"stem.{name}"
    name = re.sub(r"\bbn(\d)\.", r"conv\1.norm.", name)
    name = name.replace("downsample.0.", "shortcut.")
    return name.replace("downsample.1.", "shortcut.norm.")


def _hf_resnet(name: str) -> str:
    name = re.sub(r"^conv1\.", "embedder.embedder.convolution.", name)
    name = re.sub(r"^bn1\.", "embedder.embedder.normalization.", name)
    name = re.sub(
        r"^layer(\d)\.(\d+)\.",
        lambda m: f"encoder.stages.{int(m[1]) - 1}.layers.{m[2]}.",
        name,
    )
    for kind, layer in (("conv", "convolution"), ("bn", "normalization")):
        name = re.sub(
            rf"\.{kind}(\d)\.", lambda m, y=layer: f".layer.{int(m[1]) - 1}.{y}.", name
        )
    name = name.replace("downsample.0.", "shortcut.convolution.")
    return name.replace("downsample.1.", "shortcut.normalization.")


_HF_VIT = (
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^norm\.", "layernorm."),
    (r"^blocks\.", "encoder.layer."),
    (r"\.attn\.(query|key|value)\.", r".attention.attention.\1."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)


def _hf_vit(name: str) -> str:
    for pattern, replacement in _HF_VIT:
        name = re.sub(pattern, replacement, name)
    return name
