"""Malformed files of weights are refused at once, in a sentence."""

import collections
import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from sp_jax import weights
from sp_jax.errors import UserError
from sp_jax.models.resnet import BasicBlock, ResNet
from sp_jax.weights.families import family
from tests.torchvision_ref import torch
from tests.weights.conftest import make, tensors

RESNET = ResNet((1, 1, 1, 1), BasicBlock, width=4)


@pytest.fixture(scope="module")
def states(backbones):
    found = {"vit": backbones["vit"], "resnet": make(RESNET)}
    return {
        name: (b.module, weights.to_torch(b.module, b.variables))
        for name, b in found.items()
    }


@pytest.fixture
def refusal(tmp_path):
    """The sentence about a file, of which one says what it is."""

    def refuse(content, about=None):
        path = tmp_path / ("a.safetensors" if about is not None else "a.pth")
        if about is not None:
            save_file(content, path, {"sp_jax": about})
        else:
            torch.save(content, path)
        with pytest.raises(UserError) as error:
            weights.load(path)
        assert str(error.value).startswith(f"{path} cannot be used: ")
        return str(error.value)

    return refuse


@pytest.mark.parametrize(
    "kind, change",
    [
        ("vit", {"depth": 10**9}),
        ("vit", {"dim": 10**9}),
        ("vit", {"image_size": 10**9}),
        ("vit", {"patch_size": 0}),
        ("vit", {"mlp_ratio": 1e300}),
        ("vit", {"position": "sincos"}),
        ("vit", {"heads": 0}),
        ("vit", {"heads": "2"}),
        ("resnet", {"stage_sizes": [10**9] * 4}),
        ("resnet", {"width": 0}),
        ("resnet", {"kind": "vit"}),
    ],
)
def test_a_description_that_its_arrays_do_not_fit(states, refusal, kind, change):
    module, state = states[kind]
    about = {"module": family(module).description(module) | change}
    assert next(iter(change)) in refusal(state, json.dumps(about))


@pytest.mark.parametrize(
    "about",
    [
        *(
            "null",
            "[]",
            "1",
            "{",
            "[" * 10**5,
            '{"size": true}',
            '{"size": 1000000000}',
        ),
        *(
            '{"size": NaN}',
            '{"mean": [0, 0, NaN]}',
            '{"std": [1, 0, 1]}',
            '{"step": []}',
        ),
        *('{"module": []}', '{"module": {}}', '{"images": {"image_size": 1e9}}'),
    ],
)
def test_what_a_file_says_of_itself(states, refusal, about):
    refusal(states["vit"][1], about)


@pytest.mark.parametrize(
    "kind, name, value",
    [
        ("vit", "blocks.999999999.norm1.weight", np.ones(4)),
        ("vit", "blocks.3.norm1.weight", np.ones(4)),
        ("resnet", "layer1.999999999.bn1.weight", np.ones(4)),
        ("resnet", "layer999999999.0.bn1.weight", np.ones(4)),
        ("vit", "pos_embed", np.zeros(5)),
        ("vit", "pos_embed", np.zeros((1, 0, 128))),
        ("vit", "patch_embed.proj.weight", np.zeros((0, 3, 8, 8))),
        ("vit", "blocks.0.mlp.fc1.weight", np.zeros(())),
        ("vit", "blocks.0.ls1.gamma", np.zeros(())),
        ("vit", "norm.weight", np.full(128, np.nan)),
        ("vit", "norm.weight", np.full(128, 1e300)),
        ("vit", "norm.weight", np.ones(128, np.int8)),
        ("vit", "norm.weight", np.ones(128, np.complex64)),
    ],
)
def test_arrays_of_no_network(states, refusal, kind, name, value):
    refusal({**states[kind][1], name: value}, "{}")


def test_tensors_of_other_kinds(states, refusal, tmp_path):
    whole = tensors(states["vit"][1])
    plain = whole["blocks.0.mlp.fc1.weight"]
    for other in (
        plain.to_sparse(),
        plain.to("meta"),
        plain.to(torch.float8_e4m3fn),
        plain.to(torch.int8),
        torch.zeros(1).expand(512, 128),
        torch.nested.nested_tensor([plain, plain], layout=torch.jagged),
    ):
        said = refusal({**whole, "blocks.0.mlp.fc1.weight": other})
        assert "blocks.0.mlp.fc1.weight" in said
        # Elsewhere they do not matter.
        torch.save({"model": whole, "optimizer": {"m": other}}, tmp_path / "b.pth")
        assert len(weights.load(tmp_path / "b.pth").info["left_out"]) == 1


def test_dicts_in_dicts(states, refusal, tmp_path):
    many = {}
    for _ in range(60):  # 2^60 paths
        many = {"a": many, "b": many}
    assert "holds no arrays" in refusal(many)
    own = collections.OrderedDict(model=tensors(states["vit"][1]))
    own["self"] = own
    torch.save(own, tmp_path / "b.pth")
    assert weights.load(tmp_path / "b.pth").info["left_out"] == []
    own.sp_jax = 3
    assert "its description" in refusal(own)


@pytest.mark.parametrize("kind", [ml_dtypes.bfloat16, np.float16, np.float64])
def test_other_floating_point_keeps_its_values(states, kind, tmp_path):
    state = {
        name: value.astype(kind) if value.dtype == np.float32 else value
        for name, value in states["resnet"][1].items()
    }
    save_file(state, tmp_path / "a.safetensors")
    backbone = weights.load(tmp_path / "a.safetensors")
    got = backbone.variables["params"]["bn1"]["scale"]
    np.testing.assert_array_equal(got, state["bn1.weight"].astype(np.float32))
