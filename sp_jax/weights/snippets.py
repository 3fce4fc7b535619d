"""Python code that makes features with an exported folder, for each library that loads it.

It stands in the folder's model card; the tests run it from there.
"""

import flax.linen as nn
import jax
import numpy as np

from sp_jax.backbone import Backbone
from sp_jax.models.resnet import ResNet
from sp_jax.weights.families import family
from sp_jax.weights.resnet import is_standard

# With what the tests run it.
TESTED = {
    "torch": "2.13.0",
    "torchvision": "0.28.0",
    "timm": "1.0.31",
    "transformers": "5.24.0",
}
_LIBRARY = {"huggingface": "transformers"}  # of a naming, where it has another name

_OURS = """\
import pathlib

import sp_jax
from input_pipeline.stores.decode import decode

folder = "."
image = decode(pathlib.Path("image.jpg").read_bytes(), {image_size}, "{resize}")
features = sp_jax.load(folder)(image[None])  # float32 [1, {features}]
"""
_IMAGES = """\
import torch
from PIL import Image, ImageOps
from torchvision.transforms import functional as F

folder = "."
image = ImageOps.exif_transpose(Image.open("image.jpg")).convert("RGB")
{square}
images = {tensor}
images = F.normalize(images, {mean}, {std})[None]
"""
_CROP = """\
scale = {0} / min(image.size)
width, height = (round(side * scale) for side in image.size)
image = image.resize((width, height), Image.Resampling.BICUBIC)
left, top = (width - {0}) // 2, (height - {0}) // 2
image = image.crop((left, top, left + {0}, top + {0}))"""
_SQUASH = "image = image.resize(({0}, {0}), Image.Resampling.BICUBIC)"
_TORCHVISION = """\
from safetensors.torch import load_file
from torchvision.models.resnet import {block}, ResNet

network = ResNet({block}, {stages})
"""
_TIMM_RESNET = """\
import timm
from safetensors.torch import load_file

network = timm.create_model("{architecture}", num_classes=0, layers={stages})
"""
_SMALL_STEM = """\
network.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
network.maxpool = torch.nn.Identity()
"""
_NO_HEAD = "network.fc = torch.nn.Identity()\n"
_WEIGHTS = 'network.load_state_dict(load_file(f"{folder}/model.safetensors"))\n'
_TIMM = """\
import timm

network = timm.create_model(f"local-dir:{folder}", pretrained=True)
"""
_TRANSFORMERS = """\
from transformers import AutoModel

network = AutoModel.from_pretrained(folder{options})
"""
_CALL = """\
with torch.no_grad():
    features = network.eval()(images){pick}  # float32 [1, {features}]
"""


def loaders(backbone: Backbone, naming: str) -> list[str]:
    """The other libraries that load a folder with these names and give our features."""
    module = backbone.module
    known = family(module).libraries(module)
    if naming not in known or _stretched(backbone):  # libraries stretch differently
        return []
    if naming == "huggingface":
        return ["transformers"]
    standard = isinstance(module, ResNet) and is_standard(module)
    config = family(module).timm_config(module)
    return [
        *(["torchvision"] if standard else []),
        *(["timm"] if standard or config else []),
        *(["transformers"] if config else []),  # it calls timm
    ]


def choose_naming(backbone: Backbone) -> str:
    """The naming for a folder that most libraries load; the first one of equals."""
    namings = list(family(backbone.module).libraries(backbone.module))
    return max(namings, key=lambda naming: len(loaders(backbone, naming)))


def describe_loaders(backbone: Backbone, naming: str, folder: bool = True) -> str:
    """Which libraries load a folder or file, and what to do if its own library cannot."""
    found, library = loaders(backbone, naming), _LIBRARY.get(naming, naming)
    if library in found:
        names = ", ".join(found if folder else [library])
        return f"It can be loaded with {names} and sp_jax."
    network = backbone.module.describe()
    if _stretched(backbone):
        network += f", with positions for {backbone.module.image_size} px"
        network += f" stretched to {backbone.size} px as here"
    other = choose_naming(backbone)
    if able := loaders(backbone, other):
        return (
            f"{library} has no {network}: --format={other} --out=FOLDER writes a folder "
            f"for {', '.join(able)}."
        )
    return f"{library} has no {network}: only sp_jax can load it."


def snippets(backbone: Backbone, naming: str) -> dict[str, str]:
    """Python for an exported folder: "sp_jax", "images" for the others, and the `loaders`.

    Run in the folder, beside an image.jpg, it leaves `features`: those of the evaluations.
    """
    module, (image_size, resize) = backbone.module, backbone.stored
    shape = count_features(backbone)
    found = {
        "sp_jax": _OURS.format(image_size=image_size, resize=resize, features=shape)
    }
    libraries = loaders(backbone, naming)
    if libraries:
        found["images"] = _images(backbone)
    for library in libraries:
        code, pick = _network(module, naming, library)
        found[library] = code + _CALL.format(pick=pick, features=shape)
    return found


def count_features(backbone: Backbone) -> int:
    """The number of features of an image."""
    images = np.zeros((1, backbone.size, backbone.size, 3), np.uint8)
    return jax.eval_shape(backbone.apply, backbone.variables, images).shape[-1]


def _stretched(backbone: Backbone) -> bool:
    """Whether its images have another size than its position embedding."""
    module = backbone.module
    return not isinstance(module, ResNet) and module.image_size != backbone.size


def _images(backbone: Backbone) -> str:
    """Code that makes `images` from a file, as stores and the backbone do here."""
    (stored, resize), size = backbone.stored, backbone.size
    mean, std = (tuple(map(float, colour)) for colour in (backbone.mean, backbone.std))
    tensor = "F.to_tensor(image)"
    if stored != size:
        tensor = f"F.resize({tensor}, [{size}, {size}], antialias=True)"
    square = (_SQUASH if resize == "squash" else _CROP).format(stored)
    return _IMAGES.format(square=square, tensor=tensor, mean=mean, std=std)


def _network(module: nn.Module, naming: str, library: str) -> tuple[str, str]:
    """Code that makes the `network`, and code that takes the features out of its output."""
    if library == "transformers":
        if naming != "huggingface":
            return _TRANSFORMERS.format(options=""), ".pooler_output"
        if isinstance(module, ResNet):
            return _TRANSFORMERS.format(options=""), ".pooler_output.flatten(1)"
        options = ", add_pooling_layer=False"
        return _TRANSFORMERS.format(options=options), ".last_hidden_state[:, 0]"
    if library == "timm" and family(module).timm_config(module):
        return _TIMM, ""
    small = _SMALL_STEM if module.stem == "small" else ""
    stages, block = list(module.stage_sizes), module.block.__name__
    if library == "timm":
        name = {"BasicBlock": "resnet18", "Bottleneck": "resnet50"}[block]
        return _TIMM_RESNET.format(
            architecture=name, stages=stages
        ) + small + _WEIGHTS, ""
    made = _TORCHVISION.format(block=block, stages=stages)
    return made + small + _NO_HEAD + _WEIGHTS, ""
