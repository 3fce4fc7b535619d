"""ResNets in other libraries: their names, and the ResNet that some weights belong to.

Sources: transformers' `modeling_resnet.py` (https://github.com/huggingface/transformers),
MoCo's `convert-pretrain-to-detectron2.py` (https://github.com/facebookresearch/moco).
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from sp_jax.models.resnet import BasicBlock, Bottleneck, ResNet
from sp_jax.weights.names import Shapes, State, Table, count, shape_of

LAYERS = range(1, 9)  # there are four, or at most eight
_LIBRARIES: dict[str, Table] = {
    "torchvision": (),
    "timm": (),
    "huggingface": (
        ("^conv1.", "^embedder.embedder.convolution."),
        ("^bn1.", "^embedder.embedder.normalization."),
        *((f"^layer{i}.", f"^encoder.stages.{i - 1}.layers.") for i in LAYERS),
        *((f".conv{i}.", f".layer.{i - 1}.convolution.") for i in (1, 2, 3)),
        *((f".bn{i}.", f".layer.{i - 1}.normalization.") for i in (1, 2, 3)),
        (".downsample.0.", ".shortcut.convolution."),
        (".downsample.1.", ".shortcut.normalization."),
    ),
    "detectron2": (
        ("^conv1.", "^stem.conv1."),
        ("^bn1.", "^stem.conv1.norm."),
        *((f"^layer{i}.", f"^res{i + 1}.") for i in LAYERS),
        *((f".bn{i}.", f".conv{i}.norm.") for i in (1, 2, 3)),
        (".downsample.0.", ".shortcut."),
        (".downsample.1.", ".shortcut.norm."),
    ),
}
# The ResNets for CIFAR, of lightly, too.
_SHORTCUT = ((".downsample.", ".shortcut."),)
LANDMARKS = {
    "layer1.0.conv1.weight": _SHORTCUT,
    "embedder.embedder.convolution.weight": _LIBRARIES["huggingface"],
}
NUMBERED = re.compile(r"((?:.*\.)?)(\d+)\.0\.conv1\.weight$")  # in a Sequential


def libraries(module: ResNet) -> dict[str, Table]:
    """The libraries that have this network, and its names there."""
    if module.stem == "imagenet":
        return _LIBRARIES
    return {name: _LIBRARIES[name] for name in ("torchvision", "timm")}


def fixed(module: ResNet) -> State:
    """Arrays that are parameters in the libraries, but not here: none."""
    return {}


def simplify(state: State) -> State:
    """Weights of a ResNet here that give the same features: the same weights."""
    return state


def description(module: ResNet) -> dict[str, Any]:
    """JSON values from which the network can be built again."""
    return {
        "kind": "resnet",
        "stage_sizes": list(module.stage_sizes),
        "block": module.block.__name__,
        "width": module.width,
        "stem": module.stem,
    }


def guess(state: Mapping[str, np.ndarray], dtype, heads: int | None) -> ResNet:
    """The ResNet that these weights belong to, from their names and shapes."""
    if heads is not None:
        raise ValueError("a ResNet has no heads.")
    if "conv1.weight" not in state:
        raise ValueError("its ResNet has no conv1.weight; ours has.")
    width, *_, kernel = shape_of(state, "conv1.weight", 4)
    stages = count(state, r"layer(\d+)\.", first=1)
    if stages not in LAYERS:
        raise ValueError(f"no ResNet has {stages} stages.")
    return ResNet(
        tuple(count(state, rf"layer{i}\.(\d+)\.") for i in range(1, stages + 1)),
        Bottleneck if "layer1.0.conv3.weight" in state else BasicBlock,
        width=width,
        stem="imagenet" if kernel == 7 else "small",
        dtype=dtype,
    )


def numbered_names(prefix: str, shapes: Shapes) -> Table:
    """Names of a `Sequential` of a ResNet's children, of which 0 and 1 are conv1 and bn1.

    Layers without parameters count, too: the stages begin at 4 after a ReLU and a pooling,
    and at 3 after a ReLU. If they begin at 2 there is no ReLU, as in lightly's Sequential of
    its own ResNets, and the features differ.
    """
    short = [name.removeprefix(prefix) for name in shapes if name.startswith(prefix)]
    numbers = {int(n) for n in (name.split(".")[0] for name in short) if n.isdecimal()}
    stages = sorted({int(m[2]) for m in map(NUMBERED.match, short) if m and not m[1]})
    first = stages[0]
    gaps = stages[-1] - first + 1 != len(stages)
    if gaps or any(1 < n < stages[-1] and n not in stages for n in numbers):
        raise ValueError(
            f"its layers are numbered, and those with parameters ({sorted(numbers)}) are "
            "not the children of a ResNet in their order."
        )
    pooled = shapes[f"{prefix}0.weight"][-1:] == (7,)
    if first != 4 and (pooled or first != 3):
        raise ValueError(
            f"its layers are numbered, and the stages begin at {first}: between them and "
            f"the first two layers ours has a ReLU{' and a pooling' if pooled else ''}."
        )
    layers = ((f"^layer{i + 1}.", f"^{number}.") for i, number in enumerate(stages))
    return (("^conv1.", "^0."), ("^bn1.", "^1."), *layers, *_SHORTCUT)


def is_standard(module: ResNet) -> bool:
    """Whether torchvision and timm can build it, apart from its stem; they fix the widths."""
    return module.width == 64 and len(module.stage_sizes) == 4


def timm_config(module: ResNet) -> dict[str, Any] | None:
    """The content of config.json from which timm builds the network; None if it cannot."""
    if not is_standard(module) or module.stem != "imagenet":
        return None
    return {
        "architecture": "resnet50" if module.block is Bottleneck else "resnet18",
        "num_features": 512 * module.block.expansion,
        "model_args": {"layers": list(module.stage_sizes)},
    }


def hugging_face_config(module: ResNet) -> dict[str, Any]:
    """The content of config.json for `from_pretrained` of transformers."""
    return {
        "model_type": "resnet",
        "architectures": ["ResNetModel"],
        "embedding_size": module.width,
        "hidden_sizes": [
            module.width * module.block.expansion * 2**stage
            for stage in range(len(module.stage_sizes))
        ],
        "depths": list(module.stage_sizes),
        "layer_type": "bottleneck" if module.block is Bottleneck else "basic",
        "hidden_act": "relu",
    }
