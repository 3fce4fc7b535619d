"""Variables as a state dict: names and layouts of torchvision, timm and other libraries.

Our modules carry torchvision's names (ResNet) and timm's (ViT), so the way there is a rule:
`layer1_0/conv1/kernel` [k, k, in, out] is `layer1.0.conv1.weight` [out, in, k, k].
"""

import functools
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sp_jax.errors import UserError
from sp_jax.weights.families import family
from sp_jax.weights.names import QKV, State, Table, name_there

PyTree = Any
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

    Returns:
        Arrays by name, float32; a ResNet's counters of batches are int64 zeros. A fixed
        position embedding is written as the parameter that timm has in its place.

    Example:
        >>> from sp_jax import models
        >>> part = {"layer1_0": {"conv2": {"kernel": np.zeros((3, 3, 4, 8))}}}
        >>> state = to_torch(models.get("resnet18"), {"params": part})
        >>> state["layer1.0.conv2.weight"].shape
        (8, 4, 3, 3)
    """
    state = {}
    for path, value in jax.tree.leaves_with_path(variables):
        name = _torch_name(path)
        state[name] = _turn(path, np.asarray(value, np.float32))
        if name.endswith("running_var"):
            state[_counter(name)] = np.zeros((), np.int64)
    return state | family(module).fixed(module)


def names_of(module: nn.Module, naming: str | None = None) -> tuple[str, Table]:
    """A naming, by default that of the library whose names ours follow, and its names.

    Raises:
        UserError: the naming is unknown, or the library has no such network.
    """
    if naming is not None and naming not in NAMINGS:
        known = ", ".join(NAMINGS)
        raise UserError(f"There is no naming {naming!r}; choose one of: {known}.")
    libraries = family(module).libraries(module)
    naming = naming or next(iter(libraries))
    if naming not in libraries:
        raise UserError(
            f"{naming} has no {module.describe()}: choose {' or '.join(libraries)}."
        )
    return naming, libraries[naming]


def rename(module: nn.Module, state: State, naming: str) -> State:
    """A state dict of `to_torch` in the names of another library, one of `NAMINGS`.

    "huggingface" is `ResNetModel` or `ViTModel` of transformers, "detectron2" its ResNet
    backbone (as MoCo's converter writes).

    Raises:
        UserError: the naming is unknown, or the library has no such network.
    """
    naming, table = names_of(module, naming)
    renamed = {}
    for name, value in state.items():
        if naming == "huggingface" and ".qkv." in name:
            for part, third in zip(QKV, np.split(value, 3), strict=True):
                renamed[name_there(name.replace("qkv", part), table)] = third
        elif naming != "detectron2" or not name.endswith("num_batches_tracked"):
            renamed[name_there(name, table)] = value
    return renamed


def from_torch(module: nn.Module, state: Mapping[str, np.ndarray]) -> PyTree:
    """The variables of a backbone, float32 of NumPy, from such a state dict.

    Names that the backbone has not are ignored.

    Raises:
        ValueError: names are missing, shapes differ, or a number is not finite.
    """
    missing, wrong, broken = [], [], []

    def take(path, wanted):
        name = _torch_name(path)
        if name not in state:
            missing.append(name)
            return None
        with np.errstate(over="ignore"):  # of float64: reported as not finite
            value = np.asarray(state[name], np.float32)
        value = _turn(path, value, back=True)
        if value.shape != wanted.shape:
            wrong.append(f"{name} {list(state[name].shape)}")
            return None
        if not np.isfinite(value).all():
            broken.append(name)
        return value

    variables = jax.tree.map_with_path(take, _shapes(module))
    faults = {
        "are missing": missing,
        "have another shape": wrong,
        "have no finite numbers": broken,
    }
    if found := [f"{len(n)} {what}, such as {n[0]}" for what, n in faults.items() if n]:
        raise ValueError(f"The weights do not fit the network: {'; '.join(found)}.")
    return {"batch_stats": {}, **variables}


def owned_names(module: nn.Module) -> set[str]:
    """The names that `to_torch` gives for a module, without making parameters."""
    leaves = jax.tree.leaves_with_path(_shapes(module))
    names = {_torch_name(path) for path, _ in leaves}
    names |= {_counter(name) for name in names}
    return names | family(module).fixed(module).keys()


def _shapes(module: nn.Module) -> PyTree:
    side = module.image_size
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    init = functools.partial(module.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), images)


def _torch_name(path) -> str:
    _, *parts, leaf = (part.key for part in path)
    names = [re.sub(r"^(layer\d|downsample)_(\d+)$", r"\1.\2", part) for part in parts]
    names = [re.sub(r"^block(\d+)$", r"blocks.\1", part) for part in names]
    return ".".join([*names, _LEAVES.get(leaf, leaf)])


def _counter(name: str) -> str:
    """The number of batches that PyTorch counts beside a running variance."""
    return name.replace("running_var", "num_batches_tracked")


def _turn(path, value: np.ndarray, back: bool = False) -> np.ndarray:
    """A kernel between [k, k, in, out] or [in, out] and [out, in, k, k] or [out, in]."""
    if path[-1].key != "kernel":
        return value
    if value.ndim == 2:
        axes = 1, 0
    else:
        axes = (2, 3, 1, 0) if back else (3, 2, 0, 1)
    return np.ascontiguousarray(value.transpose(axes))
