"""ViTs in other libraries: their names, and the ViT that some weights belong to.

Source: transformers' `modeling_vit.py` (https://github.com/huggingface/transformers).
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from sp_jax.models.vit import ViT, sincos_position
from sp_jax.weights.names import State, Table, count, shape_of

# The order matters in both directions.
_HUGGING_FACE = (
    ("^cls_token", "^embeddings.cls_token"),
    ("^pos_embed", "^embeddings.position_embeddings"),
    ("^patch_embed.proj.", "^embeddings.patch_embeddings.projection."),
    ("^blocks.", "^encoder.layer."),
    (".attn.proj.", ".attention.output.dense."),
    (".attn.", ".attention.attention."),
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
    ("^norm.", "^layernorm."),
    (".ls1.gamma", ".layer_scale1.lambda1"),  # DINOv2
    (".ls2.gamma", ".layer_scale2.lambda1"),
)
LANDMARKS = {
    "patch_embed.proj.weight": (),
    "embeddings.patch_embeddings.projection.weight": _HUGGING_FACE,
}
_SCALE = re.compile(r"(blocks\.\d+)\.(ls[12]\.gamma|gamma_[12])$")
# Heads of each width where not 64 numbers make a head: timm's ViT-SO400M, -H, -g and -G.
_HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16}
_FIELDS = ("dim", "depth", "heads", "mlp_ratio", "patch_size", "image_size", "position")


def libraries(module: ViT) -> dict[str, Table]:
    """The libraries that have this network, and its names there.

    torchvision's ViTs differ from timm's, which ours are.
    """
    return {"timm": (), "huggingface": _HUGGING_FACE}


def fixed(module: ViT) -> State:
    """Arrays that are parameters in the libraries, but not here: fixed positions."""
    if module.position != "sincos":
        return {}
    side = module.image_size // module.patch_size
    table = sincos_position(side, side, module.dim)
    return {"pos_embed": table.astype(np.float32)}


def simplify(state: State) -> State:
    """Weights of a ViT here that give the same features, with timm's names.

    - LayerScale (DINOv2, DeiT III): a branch's output times gamma is the output of its last
      layer with scaled weights.
    - Positions of the patches alone (DeiT III): that of the class token is zero.
    """
    simple = dict(state)
    for name in state:
        if not (match := _SCALE.match(name)):
            continue
        gamma = state[name].astype(np.float32)
        layer = match[1] + (".attn.proj" if "1" in match[2] else ".mlp.fc2")
        weight, bias = (simple.get(f"{layer}.{leaf}") for leaf in ("weight", "bias"))
        if weight is None or bias is None:
            continue  # refused as a part that no network here has
        if not gamma.shape == bias.shape == weight.shape[:1]:
            continue
        del simple[name]
        simple[f"{layer}.weight"] = weight * gamma[:, None]
        simple[f"{layer}.bias"] = bias * gamma
    positions = state.get("pos_embed")
    if "cls_token" in state and positions is not None and positions.ndim == 3:
        if math.isqrt(positions.shape[1]) ** 2 == positions.shape[1]:
            simple["pos_embed"] = np.pad(positions, ((0, 0), (1, 0), (0, 0)))
    return simple


def description(module: ViT) -> dict[str, Any]:
    """JSON values from which the network can be built again."""
    return {"kind": "vit", **{name: getattr(module, name) for name in _FIELDS}}


def guess(state: Mapping[str, np.ndarray], dtype, heads: int | None) -> ViT:
    """The ViT that these weights belong to, from their names and shapes."""
    needed = ("pos_embed", "cls_token", "blocks.0.mlp.fc1.weight")
    if missing := [name for name in needed if name not in state]:
        raise ValueError(f"its ViT has no {missing[0]}; ours has.")
    dim, *_, patch = shape_of(state, "patch_embed.proj.weight", 4)
    positions = state["pos_embed"]
    side = math.isqrt(shape_of(state, "pos_embed", 3)[1] - 1)
    fixed = (
        positions.shape == (1, 1 + side * side, dim)
        and dim % 4 == 0
        and np.allclose(positions, sincos_position(side, side, dim), atol=1e-5)
    )
    if heads is None:
        moco = fixed and dim == 384  # its ViT-S is the exception
        heads = 12 if moco else _HEADS.get(dim, max(1, dim // 64))
    if type(heads) is not int or heads < 1:
        raise ValueError(f"heads must be a whole number of at least 1, not {heads!r}.")
    hidden = shape_of(state, "blocks.0.mlp.fc1.weight", 2)[0]
    ratio = hidden / dim
    if int(ratio * dim) < hidden:  # as ViT rounds
        ratio = math.nextafter(ratio, math.inf)
    return ViT(
        dim=dim,
        depth=count(state, r"blocks\.(\d+)\."),
        heads=heads,
        mlp_ratio=ratio,
        patch_size=patch,
        image_size=side * patch,
        position="sincos" if fixed else "learned",
        dtype=dtype,
    )


def timm_config(module: ViT) -> dict[str, Any]:
    """The content of config.json from which timm builds the network."""
    return {
        "architecture": "vit_base_patch16_224",  # all of its sizes are replaced
        "num_features": module.dim,
        "global_pool": "token",
        "model_args": {
            "img_size": module.image_size,
            "patch_size": module.patch_size,
            "embed_dim": module.dim,
            "depth": module.depth,
            "num_heads": module.heads,
            "mlp_ratio": module.mlp_ratio,
        },
    }


def hugging_face_config(module: ViT) -> dict[str, Any]:
    """The content of config.json for `from_pretrained` of transformers."""
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
