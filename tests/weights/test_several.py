"""From several networks in a file, the authors' evaluated one or a named one is taken."""

import numpy as np
import pytest

from sp_jax import weights
from sp_jax.errors import UserError
from sp_jax.weights.find import find_network
from tests.torchvision_ref import torch
from tests.weights.conftest import tensors

RESNET = ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "fc.weight")


def shapes(*prefixes, names=RESNET):
    return {f"{prefix}{name}": (4, 3, 7, 7) for prefix in prefixes for name in names}


@pytest.mark.parametrize(
    "prefixes",
    [
        ("teacher.backbone.", "student.module.backbone."),  # DINO
        ("teacher_backbone.", "student_backbone."),
        ("module.encoder_q.", "module.encoder_k."),  # MoCo
        ("module.base_encoder.", "module.momentum_encoder."),  # MoCo v3
        ("online_network.encoder.", "target_network.encoder."),  # BYOL
        ("online_encoder.net.", "target_encoder.net."),
        ("target_encoder.module.", "encoder.module."),  # MSN
        ("backbone.", "momentum_backbone."),  # solo-learn
        ("encoder.", "momentum_encoder."),
        ("backbone.", "backbone_momentum."),  # lightly
        ("backbone.", "student_backbone."),
        ("backbone.", "query_backbone."),
        ("backbone.", "encoder_q.0.", "encoder_k.0."),  # OpenSelfSup
        ("backbone.", "online_net.0.", "target_net.0."),
        ("state_dict_ema.", "state_dict."),  # timm
    ],
)
def test_the_evaluated_network(prefixes):
    for order in (prefixes, prefixes[::-1]):
        assert find_network(shapes(*order)).prefix == prefixes[0]


@pytest.mark.parametrize(
    "prefixes",
    [
        ("model.", "model_ema."),  # DeiT evaluates the first, ConvNeXt the second
        ("encoder.", "encoder_ema."),
        ("encoder1.", "encoder2."),  # CMC
        ("backbone.", "detector."),
        ("teacher.", "student.", "net."),
        ("", "momentum."),
    ],
)
def test_one_must_be_named(prefixes):
    with pytest.raises(ValueError, match="several networks, .*--network="):
        find_network(shapes(*prefixes))
    for prefix in prefixes:
        assert find_network(shapes(*prefixes), prefix[:-1]).prefix == prefix


def test_a_student_of_another_form_is_not_left_out():
    other = {**shapes("teacher."), **shapes("student.")}
    other["student.conv1.weight"] = (2, 3, 7, 7)
    with pytest.raises(ValueError, match="several networks"):
        find_network(other)


def test_the_named_one_is_read(backbones, tmp_path):
    backbone = backbones["vit"]
    state = tensors(weights.to_torch(backbone.module, backbone.variables))
    other = {name: value + 1 for name, value in state.items()}
    path = tmp_path / "a.pth"
    torch.save({"model": other, "model_ema": state}, path)
    with pytest.raises(UserError, match="a.pth cannot be used: it holds several"):
        weights.load(path)
    again = weights.load(path, network="model_ema")
    norm = again.variables["params"]["norm"]["scale"]
    np.testing.assert_array_equal(norm, state["norm.weight"])
    assert "its names begin with model_ema" in weights.describe(again)
