"""Weights go to other libraries and come from them, with equal features."""

import functools
import pickle
import pickletools
import re

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sp_jax
from configs import common
from sp_jax import models, weights
from sp_jax.errors import UserError
from sp_jax.methods import RunSize
from sp_jax.models.resnet import BasicBlock, Bottleneck, ResNet
from sp_jax.models.vit import ViT
from sp_jax.recipe import make_recipe
from sp_jax.train.initial import open_start
from tests.torchvision_ref import torch, torchvision
from tests.weights.conftest import (
    MODULES,
    VIT,
    assert_alike,
    images,
    make,
    randomise,
    tensors,
    theirs,
)


def timm_vit(**options):
    timm = pytest.importorskip("timm.models.vision_transformer")
    sizes = dict(embed_dim=128, depth=2, num_heads=2) | options
    return timm.VisionTransformer(32, 8, num_classes=0, **sizes)


def reference(name):
    """The network of torchvision or timm, without its classifier."""
    if name == "vit":
        return timm_vit()
    blocks = torchvision.models.resnet
    block = blocks.BasicBlock if name == "basic" else blocks.Bottleneck
    network = blocks.ResNet(block, MODULES[name].stage_sizes)
    network.fc = torch.nn.Identity()
    return network


@pytest.mark.parametrize("name", MODULES)
def test_out(backbones, name):
    """Strictly, with equal features, and back to the bit."""
    backbone, network = backbones[name], reference(name)
    state = weights.to_torch(backbone.module, backbone.variables)
    network.load_state_dict(tensors(state), strict=True)
    assert_alike(theirs(network, backbone), backbone(images()))
    back = weights.from_torch(backbone.module, state)
    jax.tree.map(np.testing.assert_array_equal, back, backbone.variables)


@pytest.mark.parametrize("name", MODULES)
def test_in(name, tmp_path):
    """Another library's weights give its features here, from nothing but its file."""
    network = randomise(reference(name))
    torch.save(network.state_dict(), tmp_path / "their.pth")
    backbone = weights.load(tmp_path / "their.pth", size=32)
    got = backbone(images())
    assert got.shape[1] == {"basic": 512, "bottleneck": 2048, "vit": 128}[name]
    assert_alike(theirs(network, backbone), got)
    assert backbone.info["guessed"] and backbone.info["left_out"] == []


def test_timms_resnet(tmp_path):
    timm = pytest.importorskip("timm")
    network = randomise(timm.create_model("resnet18", num_classes=3))
    torch.save(network.state_dict(), tmp_path / "their.pth")
    backbone = weights.load(tmp_path / "their.pth", size=32)
    assert backbone.info["left_out"] == ["fc.bias", "fc.weight"]
    network.reset_classifier(0)
    assert_alike(theirs(network, backbone), backbone(images()))


@pytest.mark.parametrize("name", ["basic", "bottleneck"])
def test_a_resnet_in_a_sequential(name, tmp_path):
    """Its layers have numbers: torchvision's children, and those that a SimCLR keeps."""
    network = reference(name)

    def load(content):
        torch.save(content, tmp_path / "their.pth")
        return weights.load(tmp_path / "their.pth")

    children = torch.nn.Sequential(*network.children()).state_dict()
    state = {f"backbone.{k}": v for k, v in children.items()}
    head = {"backbone.9.weight": torch.zeros(3, 512), "head.0.weight": torch.zeros(3)}
    numbered, named = load({**state, **head}), load(network.state_dict())
    assert numbered.module == named.module
    assert numbered.info["left_out"] == sorted(head)
    jax.tree.map(np.testing.assert_array_equal, numbered.variables, named.variables)

    network.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    named = load(network.state_dict())
    del network.maxpool
    numbered = load(torch.nn.Sequential(*network.children()).state_dict())
    assert numbered.module == named.module
    jax.tree.map(np.testing.assert_array_equal, numbered.variables, named.variables)


def test_a_sequential_of_other_layers_is_refused(tmp_path):
    """lightly's own ResNets have their ReLU in no layer, so there it is lost."""
    layers = dict(reference("basic").named_children())
    for without, message in (
        (("maxpool",), "begin at 3: .* a ReLU and a pooling"),
        (("relu", "maxpool"), "begin at 2"),
        (("layer2",), "another shape, such as layer2"),
    ):
        kept = [layer for name, layer in layers.items() if name not in without]
        torch.save(torch.nn.Sequential(*kept).state_dict(), tmp_path / "their.pth")
        with pytest.raises(UserError, match=message):
            weights.load(tmp_path / "their.pth")


def test_a_shortcut_is_a_downsample(backbones, tmp_path):
    """As in ResNets for CIFAR, and in lightly's."""
    backbone = backbones["bottleneck"]
    state = tensors(weights.to_torch(backbone.module, backbone.variables))
    theirs = {name.replace("downsample", "shortcut"): x for name, x in state.items()}
    torch.save(theirs, tmp_path / "their.pth")
    again = weights.load(tmp_path / "their.pth")
    assert again.info["left_out"] == []
    jax.tree.map(np.testing.assert_array_equal, again.variables, backbone.variables)


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_round_trips(data):
    """Every naming that a network has, for networks of any size."""
    width = 4 * data.draw(st.integers(1, 3))
    if data.draw(st.booleans()):
        block = data.draw(st.sampled_from((BasicBlock, Bottleneck)))
        blocks = data.draw(st.tuples(*[st.integers(1, 2)] * 4))
        module = ResNet(blocks, block, width=width, zero_init_residual=True)
    else:
        patch, depth = data.draw(st.sampled_from((4, 8))), data.draw(st.integers(1, 3))
        module = ViT(width, depth, 1, 2, patch, 2 * patch)
    backbone = make(module)
    state = weights.to_torch(module, backbone.variables)
    hidden = weights.rename(module, state, "huggingface")
    assert not hidden.keys() & state.keys()
    shapes = {name: value.shape for name, value in hidden.items()}
    found = weights.find_network(shapes)
    back = weights.gather(hidden, found.rename)
    assert back.keys() == state.keys()
    variables = weights.from_torch(module, back)
    jax.tree.map(np.testing.assert_array_equal, variables, backbone.variables)
    assert found.family.guess(state, np.float32, None) == module


def their_transformer(name):
    """transformers' network of the same form."""
    transformers = pytest.importorskip("transformers")
    if name == "vit":
        config = transformers.ViTConfig(
            hidden_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=512,
            image_size=32,
            patch_size=8,
            layer_norm_eps=1e-6,
        )
        return transformers.ViTForImageClassification(config)
    config = transformers.ResNetConfig(
        hidden_sizes=[(4 if name == "bottleneck" else 1) * 64 * 2**i for i in range(4)],
        depths=list(MODULES[name].stage_sizes),
        layer_type=name,
    )
    return transformers.ResNetForImageClassification(config)


def transformers_features(name):
    if name == "vit":
        return lambda out: out.last_hidden_state[:, 0]
    return lambda out: out.pooler_output


@pytest.mark.parametrize("name", MODULES)
def test_to_transformers(backbones, name, tmp_path):
    """A folder is all that `from_pretrained` needs; it tells what it does not find."""
    transformers = pytest.importorskip("transformers")
    backbone = backbones[name]
    weights.save(backbone, tmp_path / "folder", "huggingface")
    kind = transformers.ViTModel if name == "vit" else transformers.ResNetModel
    options = {"add_pooling_layer": False} if name == "vit" else {}
    network, report = kind.from_pretrained(
        tmp_path / "folder", output_loading_info=True, **options
    )
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not report[problem], report
    got = theirs(network, backbone, transformers_features(name))
    assert_alike(got, backbone(images()))
    processor = transformers.ViTImageProcessor.from_pretrained(tmp_path / "folder")
    pixels = processor(list(images()), return_tensors="np")["pixel_values"]
    want = np.moveaxis(backbone.preprocess(images()), -1, 1)
    np.testing.assert_allclose(pixels, want, atol=1e-5)


@pytest.mark.parametrize("name", MODULES)
def test_from_transformers(name, tmp_path):
    network = randomise(their_transformer(name))
    network.save_pretrained(tmp_path)
    backbone = weights.load(tmp_path / "model.safetensors", size=32)
    base = network.vit if name == "vit" else network.resnet
    got = theirs(base, backbone, transformers_features(name))
    assert_alike(got, backbone(images()))
    assert len(backbone.info["left_out"]) == 2
    assert all("classifier" in one for one in backbone.info["left_out"])


def moco_to_detectron(name):
    """The rules of MoCo's convert-pretrain-to-detectron2.py."""
    if "layer" not in name:
        name = "stem." + name
    for i in range(1, 5):
        name = name.replace(f"layer{i}", f"res{i + 1}")
    for i in range(1, 4):
        name = name.replace(f"bn{i}", f"conv{i}.norm")
    name = name.replace("downsample.0", "shortcut")
    return name.replace("downsample.1", "shortcut.norm")


def test_detectron2(backbones, tmp_path):
    backbone = backbones["bottleneck"]
    path = weights.save(backbone, tmp_path / "backbone.pkl", "detectron2")
    content = pickle.loads(path.read_bytes())
    assert content["matching_heuristics"] is True
    state = weights.to_torch(backbone.module, backbone.variables)
    wanted = {moco_to_detectron(n): v for n, v in state.items() if "num_batch" not in n}
    assert content["model"].keys() == wanted.keys()
    assert "res2.0.conv1.norm.running_mean" in wanted and "stem.conv1.weight" in wanted
    for name, value in wanted.items():
        np.testing.assert_array_equal(content["model"][name], value)
        assert content["model"][name].flags.writeable  # or PyTorch warns
    # Nothing private of NumPy: an older one reads it.
    strings = [a for _, a, _ in pickletools.genops(path.read_bytes()) if a]
    assert not any("numpy." in a for a in strings if isinstance(a, str))


def test_fixed_positions(tmp_path):
    """MoCo v3's ViT has no parameter for them, timm's has; and its ViT-S has 12 heads."""
    vit = dict(VIT, dim=384, depth=1, heads=12)
    module = ViT(**vit, position="sincos")
    backbone = make(module)
    network = timm_vit(embed_dim=384, depth=1, num_heads=12)
    network.load_state_dict(tensors(weights.to_torch(module, backbone.variables)))
    want = backbone(images())
    assert_alike(theirs(network, backbone), want)
    state = {f"module.base_encoder.{k}": v for k, v in network.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "moco_v3.pth")
    again = weights.load(tmp_path / "moco_v3.pth", mean=backbone.mean, std=backbone.std)
    assert again.module == module and again.info["left_out"] == []
    assert_alike(again(images()), want)


def test_layer_scale_is_folded_into_the_weights(tmp_path):
    """DINOv2's and DeiT III's: as timm's, and as transformers' `Dinov2Model`."""
    transformers = pytest.importorskip("transformers")
    network = randomise(timm_vit(init_values=0.5))
    torch.save(network.state_dict(), tmp_path / "a.pth")
    backbone = weights.load(tmp_path / "a.pth")
    assert backbone.info["left_out"] == []
    assert_alike(theirs(network, backbone), backbone(images()))
    config = transformers.Dinov2Config(
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    network = randomise(transformers.Dinov2Model(config))
    network.save_pretrained(tmp_path)
    backbone = sp_jax.load(tmp_path / "model.safetensors")
    assert backbone.info["left_out"] == ["embeddings.mask_token"]
    got = theirs(network, backbone, transformers_features("vit"))
    assert_alike(got, backbone(images()))


def test_positions_without_the_class_token(tmp_path):
    """DeiT III's, by timm's names and by those of its authors."""
    network = randomise(timm_vit(init_values=0.5, no_embed_class=True))
    state = network.state_dict()
    official = {re.sub(r"ls(\d)\.gamma", r"gamma_\1", k): v for k, v in state.items()}
    for content in (state, {"model": official}):
        torch.save(content, tmp_path / "a.pth")
        backbone = sp_jax.load(tmp_path / "a.pth")
        assert backbone.size == 32 and backbone.info["left_out"] == []
        assert_alike(theirs(network, backbone), backbone(images()))


@pytest.mark.parametrize(
    "extra, part",
    [
        ("layer1.0.se.fc1.weight", "layer1.0.se.fc1.weight"),  # timm's SE-ResNet
        ("blocks.0.attn.q_norm.weight", "blocks.0.attn.q_norm.weight"),
        ("reg_token", "reg_token"),  # DINOv2 with registers
        ("dist_token", "dist_token"),  # DeiT
        ("norm_pre.weight", "norm_pre.weight"),  # CLIP
        ("mask_token", None),  # iBOT
        ("decoder_blocks.0.norm1.weight", None),  # MAE
        ("head.weight", None),
        ("projection_head.0.weight", None),  # SwAV
    ],
)
def test_parts_that_change_the_features_are_refused(backbones, extra, part, tmp_path):
    name = "bottleneck" if "layer" in extra or "projection" in extra else "vit"
    backbone = backbones[name]
    state = tensors(weights.to_torch(backbone.module, backbone.variables))
    torch.save({**state, extra: torch.zeros(3)}, tmp_path / "a.pth")
    if part is None:
        assert sp_jax.load(tmp_path / "a.pth").info["left_out"] == [extra]
    else:
        with pytest.raises(UserError, match=f"1 parameters .* such as {part}"):
            sp_jax.load(tmp_path / "a.pth")


@pytest.mark.parametrize("name", ["basic", "vit"])
def test_a_run_starts_from_what_a_library_wrote(name, tmp_path):
    network = randomise(reference(name))
    state = network.state_dict()
    head = {"fc.weight": torch.zeros(3, 4), "fc.bias": torch.zeros(3)}
    torch.save({"model": state | head}, tmp_path / "their.pth")
    config = common.get_config().to_dict()
    options = dict(name="resnet18"), VIT | dict(name="vit_tiny")
    config["model"], config["init"] = (
        options[name == "vit"],
        str(tmp_path / "their.pth"),
    )
    shallow = functools.partial(ResNet, (1, 2, 1, 1), BasicBlock)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.VARIANTS, "resnet18", shallow)
        recipe = make_recipe(config, RunSize(9, 3, 16, 48), train=False)
        start = open_start(config, recipe, tmp_path)
        taken = {kind: tree["backbone"] for kind, tree in start.network.items()}
        for key, value in weights.to_torch(recipe.backbone, taken).items():
            np.testing.assert_array_equal(value, state[key].numpy(), err_msg=key)

        backbone = sp_jax.load(tmp_path / "their.pth")
        folder = weights.save(backbone, tmp_path / "folder", "huggingface")
        again = open_start(config | {"init": str(folder)}, recipe, tmp_path)
    assert again.record["init_weights"] == start.record["init_weights"]
