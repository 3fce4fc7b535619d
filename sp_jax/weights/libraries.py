"""Names of other libraries, which follow from torchvision's and timm's.

Sources: transformers' `modeling_vit.py` and `modeling_resnet.py`
(https://github.com/huggingface/transformers), MoCo's `convert-pretrain-to-detectron2.py`
(https://github.com/facebookresearch/moco).
"""

import re
from collections.abc import Callable, Mapping

import flax.linen as nn
import numpy as np

from sp_jax.models.resnet import Bottleneck, ResNet
from sp_jax.models.vit import ViT
from sp_jax.weights.names import State

# torchvision's names are timm's for the same ResNets.
NAMINGS = ("torchvision", "timm", "huggingface", "detectron2")

# timm's part of a name, then that of transformers; the order matters in both directions.
_VIT = (
    ("cls_token", "embeddings.cls_token"),
    ("pos_embed", "embeddings.position_embeddings"),
    ("patch_embed.proj.", "embeddings.patch_embeddings.projection."),
    ("blocks.", "encoder.layer."),
    (".attn.proj.", ".attention.output.dense."),
    (".attn.", ".attention.attention."),
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
)
_QKV = ("query", "key", "value")  # layers of their own there


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
    check_naming(module, naming)
    if naming in ("torchvision", "timm"):
        return state
    if naming == "detectron2":
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
            for part, third in zip(_QKV, np.split(value, 3), strict=True):
                renamed[_hf_vit(name.replace("qkv", part))] = third
        else:
            renamed[_hf_vit(name)] = value
    return renamed


def check_naming(module: nn.Module, naming: str) -> None:
    """Raise a ValueError if the naming is unknown, or the library has no such network."""
    if naming not in NAMINGS:
        known = ", ".join(NAMINGS)
        raise ValueError(f"There is no naming {naming!r}; choose one of: {known}.")
    if isinstance(module, ViT):
        if naming == "torchvision":
            raise ValueError("torchvision's ViTs differ from timm's: choose timm.")
        if naming == "detectron2":
            raise ValueError("detectron2's naming is for ResNets.")
    elif naming not in ("torchvision", "timm") and module.stem != "imagenet":
        raise ValueError(f"{naming} has no ResNet with a small stem.")


def from_hugging_face(state: Mapping[str, np.ndarray]) -> State:
    """The weights of transformers' `ViTModel` or `ResNetModel` by timm's names.

    Args:
        state: arrays by transformers' names, without a prefix such as "vit.".

    Returns:
        Arrays by timm's names. Names of other parts come out as they are, or in pieces.
    """
    return gather(state, plain_name)


def gather(state: Mapping[str, np.ndarray], naming: Callable[[str], str]) -> State:
    """Arrays by other names; what becomes queries, keys and values of one name is joined.

    Raises:
        ValueError: arrays of one name do not fit to each other.
    """
    parts: dict[str, list] = {}
    for name, value in state.items():
        place = next((i for i, part in enumerate(_QKV) if f".{part}." in name), 0)
        parts.setdefault(naming(name), []).append((place, value))
    return {
        name: np.concatenate([value for _, value in sorted(found, key=lambda x: x[0])])
        if len(found) > 1
        else found[0][1]
        for name, found in parts.items()
    }


def plain_name(name: str) -> str:
    """timm's name of a parameter of transformers' `ViTModel` or `ResNetModel`.

    >>> plain_name("encoder.layer.3.attention.attention.key.bias")
    'blocks.3.attn.qkv.bias'
    >>> plain_name("encoder.stages.0.layers.1.layer.2.normalization.weight")
    'layer1.1.bn3.weight'
    """
    for ours, theirs in _VIT:
        name = name.replace(theirs, ours)
    name = re.sub(r"^layernorm\.", "norm.", name)
    name = re.sub(r"\.attn\.(query|key|value)\.", ".attn.qkv.", name)
    name = re.sub(r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma", name)  # DINOv2
    name = name.replace("embedder.embedder.convolution.", "conv1.")
    name = name.replace("embedder.embedder.normalization.", "bn1.")
    name = re.sub(
        r"^encoder\.stages\.(\d)\.layers\.(\d+)\.",
        lambda m: f"layer{int(m[1]) + 1}.{m[2]}.",
        name,
    )
    name = name.replace("shortcut.convolution.", "downsample.0.")
    name = name.replace("shortcut.normalization.", "downsample.1.")
    for ours, theirs in (("conv", "convolution"), ("bn", "normalization")):
        name = re.sub(
            rf"\.layer\.(\d)\.{theirs}\.",
            lambda m, ours=ours: f".{ours}{int(m[1]) + 1}.",
            name,
        )
    return name


def _hf_vit(name: str) -> str:
    for ours, theirs in _VIT:
        name = name.replace(ours, theirs)
    return re.sub(r"^norm\.", "layernorm.", name)


def _hf_resnet(name: str) -> str:
    name = re.sub(r"^conv1\.", "embedder.embedder.convolution.", name)
    name = re.sub(r"^bn1\.", "embedder.embedder.normalization.", name)
    name = re.sub(
        r"^layer(\d)\.(\d+)\.",
        lambda m: f"encoder.stages.{int(m[1]) - 1}.layers.{m[2]}.",
        name,
    )
    for ours, theirs in (("conv", "convolution"), ("bn", "normalization")):
        name = re.sub(
            rf"\.{ours}(\d)\.",
            lambda m, theirs=theirs: f".layer.{int(m[1]) - 1}.{theirs}.",
            name,
        )
    name = name.replace("downsample.0.", "shortcut.convolution.")
    return name.replace("downsample.1.", "shortcut.normalization.")


def _detectron(name: str) -> str:
    for stage in range(1, 5):
        name = name.replace(f"layer{stage}.", f"res{stage + 1}.")
    if not name.startswith("res"):
        name = f"stem.{name}"
    name = re.sub(r"\bbn(\d)\.", r"conv\1.norm.", name)
    name = name.replace("downsample.0.", "shortcut.")
    return name.replace("downsample.1.", "shortcut.norm.")


def hugging_face_config(module: nn.Module) -> dict:
    """What `from_pretrained` of transformers needs to know: the content of config.json."""
    if isinstance(module, ViT):
        return {
            "model_type": "vit",
            "architectures": ["ViTModel"],
            "hidden_size": module.dim,
            "num_hidden_layers": module.depth,
            "num_attention_heads": module.heads,
            "intermediate_size": int(module.mlp_ratio * module.dim),
            "image_size": module.image_size,
            "patch_size": module.patch_size,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-6,
        }
    bottleneck = module.block is Bottleneck
    return {
        "model_type": "resnet",
        "architectures": ["ResNetModel"],
        "embedding_size": module.width,
        "hidden_sizes": [
            module.width * module.block.expansion * 2**stage
            for stage in range(len(module.stage_sizes))
        ],
        "depths": list(module.stage_sizes),
        "layer_type": "bottleneck" if bottleneck else "basic",
        "hidden_act": "relu",
    }
