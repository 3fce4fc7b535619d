"""Weights go to other libraries and back, and give the same features there."""

import json
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sp_jax
from eval.results import run_folder
from input_pipeline.errors import UserError
from sp_jax import weights
from sp_jax.backbone import Backbone
from sp_jax.models.resnet import BasicBlock, Bottleneck, ResNet
from sp_jax.models.vit import ViT
from tests.torchvision_ref import torch, torchvision

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)
VIT = dict(dim=128, depth=2, heads=2, patch_size=8, image_size=32)
MODULES = {
    "basic": ResNet((1, 2, 1, 1), BasicBlock),
    "bottleneck": ResNet((1, 1, 1, 1), Bottleneck),
    "vit": ViT(**VIT),
}


@pytest.fixture(scope="module")
def backbones():
    """Random values everywhere, so that nothing is hidden by a zero."""

    def make(module):
        shapes = jax.eval_shape(
            lambda: module.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), False)
        )
        rng = np.random.default_rng(0)

        def draw(path, x):
            fan_in = np.prod(x.shape[:-1]) if path[-1].key == "kernel" else 25
            noise = rng.normal(size=x.shape) / np.sqrt(fan_in)
            positive = path[-1].key in ("scale", "var")
            return (np.abs(1 + noise) if positive else noise).astype(np.float32)

        variables = {
            "batch_stats": {},
            **jax.tree_util.tree_map_with_path(draw, shapes),
        }
        info = {"config": {"method": "simclr"}, "step": 70}
        return Backbone(module, variables, 32, MEAN, STD, info)

    return {name: make(module) for name, module in MODULES.items()}


def images():
    return np.random.default_rng(1).integers(0, 256, (8, 32, 32, 3), np.uint8)


def theirs(network, backbone, pick=lambda out: out):
    """Features of another library's network, of the same normalised images."""
    x = torch.from_numpy(np.array(backbone.preprocess(images())))
    with torch.no_grad():
        return pick(network.eval()(x.permute(0, 3, 1, 2))).flatten(1).numpy()


def tensors(state):
    return {name: torch.from_numpy(np.array(value)) for name, value in state.items()}


def reference(name):
    """The network of torchvision or timm, without its classifier."""
    if name == "vit":
        timm = pytest.importorskip("timm.models.vision_transformer")
        return timm.VisionTransformer(
            32, 8, embed_dim=128, depth=2, num_heads=2, num_classes=0
        )
    blocks = torchvision.models.resnet
    basic = name == "basic"
    network = blocks.ResNet(
        blocks.BasicBlock if basic else blocks.Bottleneck,
        MODULES[name].stage_sizes,
    )
    network.fc = torch.nn.Identity()
    return network


@pytest.mark.parametrize("name", MODULES)
def test_out_and_in_again(backbones, name):
    """Strictly, with equal features; and their own weights, randomly drawn, come in."""
    backbone, network = backbones[name], reference(name)
    state = weights.to_torch(backbone.module, backbone.variables)
    network.load_state_dict(tensors(state), strict=True)
    np.testing.assert_allclose(
        theirs(network, backbone), backbone(images()), atol=1e-4, rtol=1e-4
    )
    back = weights.from_torch(backbone.module, state)
    jax.tree.map(np.testing.assert_array_equal, back, backbone.variables)

    other = {k: v.numpy() for k, v in reference(name).state_dict().items()}
    module = weights.guess_module(other)
    assert weights.from_torch(module, other).keys() == backbone.variables.keys()
    wanted = backbone.module.clone(zero_init_residual=True) if name != "vit" else None
    assert module == (wanted or backbone.module)


@pytest.mark.parametrize("name", MODULES)
def test_hugging_face(backbones, name, tmp_path):
    """Found by `from_pretrained`, which tells what it does not find or know."""
    transformers = pytest.importorskip("transformers")
    backbone = backbones[name]
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
        kind = transformers.ViTModel
        pick = lambda out: out.last_hidden_state[:, 0]  # noqa: E731
    else:
        expansion = 4 if name == "bottleneck" else 1
        config = transformers.ResNetConfig(
            hidden_sizes=[expansion * 64 * 2**i for i in range(4)],
            depths=list(backbone.module.stage_sizes),
            layer_type=name,
        )
        kind = transformers.ResNetModel
        pick = lambda out: out.pooler_output  # noqa: E731
    config.save_pretrained(tmp_path)
    weights.save(backbone, tmp_path / "model.safetensors", "huggingface")
    options = {"add_pooling_layer": False} if name == "vit" else {}
    network, report = kind.from_pretrained(
        tmp_path, output_loading_info=True, **options
    )
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not report[problem], report
    np.testing.assert_allclose(
        theirs(network, backbone, pick), backbone(images()), atol=1e-4, rtol=1e-4
    )


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


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("name", MODULES)
def test_files(backbones, name, suffix, tmp_path):
    backbone = backbones[name]
    naming = "timm" if name == "vit" else "torchvision"
    path = weights.save(backbone, tmp_path / f"backbone{suffix}", naming)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    again = sp_jax.load(path)
    jax.tree.map(np.testing.assert_array_equal, again.variables, backbone.variables)
    assert again.info["left_out"] == []
    if suffix == ".safetensors":
        assert (again.size, again.mean, again.std) == (32, MEAN, STD)
        assert again.info["method"] == "simclr" and again.info["step"] == 70
        np.testing.assert_array_equal(again(images()), backbone(images()))
    assert run_folder(path) == tmp_path / "backbone"


def test_a_public_checkpoint(backbones, tmp_path):
    """Prefixes of the training code, a classifier, and two networks in one file."""
    state = weights.to_torch(MODULES["bottleneck"], backbones["bottleneck"].variables)
    content = {}
    for encoder in ("encoder_q", "encoder_k"):
        for name, value in tensors(state).items():
            content[f"module.{encoder}.{name}"] = value + (encoder == "encoder_k")
        content[f"module.{encoder}.fc.0.weight"] = torch.zeros(8, 2048)
    path = tmp_path / "moco.pth.tar"
    torch.save({"epoch": 200, "state_dict": content}, path)
    backbone = sp_jax.load(path)
    wanted = backbones["bottleneck"].variables
    jax.tree.map(np.testing.assert_array_equal, backbone.variables, wanted)
    assert backbone.size == 224 and backbone.mean[0] == 0.485
    assert "module.encoder_q.fc.0.weight" in backbone.info["left_out"]
    assert not any("encoder_q.conv1" in name for name in backbone.info["left_out"])


def test_fixed_positions_go_out(tmp_path):
    """MoCo v3's ViT has no parameter for them; timm's has."""
    module = ViT(**VIT, position="sincos")
    variables = jax.jit(
        lambda: module.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), False)
    )()
    backbone = Backbone(module, variables, 32, MEAN, STD)
    network = reference("vit")
    state = weights.to_torch(module, backbone.variables)
    network.load_state_dict(tensors(state), strict=True)
    want = backbone(images())
    np.testing.assert_allclose(theirs(network, backbone), want, atol=1e-4, rtol=1e-4)
    path = weights.save(backbone, tmp_path / "vit.safetensors", "timm")
    np.testing.assert_array_equal(sp_jax.load(path)(images()), want)
    assert sp_jax.load(path).info["left_out"] == []


def test_what_cannot_be_used_is_said(backbones, tmp_path):
    resnet, vit = backbones["bottleneck"], backbones["vit"]

    def refused(content, name="a.pth"):
        torch.save(content, tmp_path / name)
        with pytest.raises(UserError) as error:
            sp_jax.load(tmp_path / name)
        return str(error.value)

    state = tensors(weights.to_torch(resnet.module, resnet.variables))
    assert "no ResNet of torchvision" in refused({"weight": torch.zeros(3)})
    less = {k: v for k, v in state.items() if k != "layer2.0.conv2.weight"}
    assert "1 are missing, such as layer2.0.conv2.weight" in refused(less)
    other = {**state, "bn1.bias": torch.zeros(7)}
    assert "1 have another shape, such as bn1.bias [7]" in refused(other)
    two = {f"{net}.{k}": v for net in "ab" for k, v in state.items()}
    assert "several networks: a., b.;" in refused(two)
    # A pickle that runs code is not run.
    path = tmp_path / "bad.pth"
    path.write_bytes(pickle.dumps(pytest.main))
    with pytest.raises(UserError, match="PyTorch does not read it"):
        sp_jax.load(path)
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="it is damaged"):
        sp_jax.load(tmp_path / "bad.safetensors")
    with pytest.raises(UserError, match="must end in"):
        weights.save(resnet, tmp_path / "a.zip", "timm")
    with pytest.raises(UserError, match="for .pkl only"):
        weights.save(resnet, tmp_path / "a.pth", "detectron2")
    with pytest.raises(UserError, match="is for ResNets"):
        weights.save(vit, tmp_path / "a.pkl", "detectron2")
    with pytest.raises(UserError, match="choose timm"):
        weights.save(vit, tmp_path / "a.pth", "torchvision")
    hidden = weights.save(resnet, tmp_path / "hf.safetensors", "huggingface")
    with pytest.raises(UserError, match="names of huggingface"):
        sp_jax.load(hidden)


def test_the_commands(backbones, tmp_path):
    """A file is exported again, and evaluated like a run."""
    module = ResNet((1, 1, 1, 1), BasicBlock, width=4)
    variables = jax.jit(
        lambda: module.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), False)
    )()
    small = Backbone(module, variables, 32, MEAN, STD, {"step": 70})
    path = weights.save(small, tmp_path / "a.safetensors", "torchvision")
    out = tmp_path / "b.pth"
    command = [sys.executable, "-m", "sp_jax.export", f"--checkpoint={path}"]
    done = subprocess.run([*command, f"--out={out}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "names of torchvision; images of 32 px" in done.stdout and out.is_file()
    command = [
        sys.executable,
        "-m",
        "eval.knn",
        f"--checkpoint={path}",
        "--dataset=emoji",
    ]
    command += ["--train_split=probe_train", "--test_split=probe_test"]
    done = subprocess.run(
        [*command, "--target=category"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "a" / "eval" / "knn.json").read_text())
    assert 0.1 < result["result"]["accuracy"] < 1 and result["step"] == 70
