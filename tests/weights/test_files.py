"""Files of weights: complete, self-describing, and refused in a sentence."""

import argparse
import builtins
import json
import os
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sp_jax
from eval.cli import images_of
from eval.results import run_folder
from sp_jax import weights
from sp_jax.backbone import Backbone
from sp_jax.errors import UserError
from sp_jax.models.resnet import BasicBlock, ResNet
from sp_jax.models.vit import ViT
from tests.torchvision_ref import torch
from tests.weights.conftest import MEAN, MODULES, STD, VIT, make, tensors


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("naming", ["own", "huggingface"])
@pytest.mark.parametrize("name", MODULES)
def test_a_file_says_what_it_holds(backbones, name, naming, suffix, tmp_path):
    backbone = backbones[name]
    if naming == "own":
        naming = "timm" if name == "vit" else "torchvision"
    path = weights.save(backbone, tmp_path / f"a{suffix}", naming)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o777 == 0o644
    again = sp_jax.load(path)
    jax.tree.map(np.testing.assert_array_equal, again.variables, backbone.variables)
    assert (again.size, again.mean, again.std) == (32, MEAN, STD)
    assert again.info["left_out"] == [] and not again.info["guessed"]
    # The images of the run, which are not those of the network.
    assert images_of(str(path)) == {"image_size": 48, "resize": "squash"}
    # Nothing is lost when the file is exported again.
    second = sp_jax.load(weights.save(again, tmp_path / "b.safetensors", naming))
    for key in ("method", "step", "images"):
        assert second.info[key] == again.info[key]
    assert (again.info["method"], again.info["step"]) == ("simclr", 70)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_what_no_shape_tells(suffix, tmp_path):
    """Heads, fixed positions and a small stem."""
    for module in (
        ViT(**VIT | {"heads": 8}),
        ViT(**VIT, position="sincos"),
        ResNet((1, 1, 1, 1), BasicBlock, width=4, stem="small"),
    ):
        backbone = make(module)
        again = sp_jax.load(weights.save(backbone, tmp_path / f"a{suffix}", "timm"))
        assert again.module == module and again.info["left_out"] == []
        jax.tree.map(np.testing.assert_array_equal, again.variables, backbone.variables)


def test_of_jax_arrays_no_library_warns(tmp_path, recwarn):
    backbone = make(ResNet((1, 1, 1, 1), BasicBlock, width=4))
    variables = jax.tree.map(jnp.asarray, backbone.variables)
    backbone = Backbone(backbone.module, variables, 32, MEAN, STD)
    weights.save(backbone, tmp_path / "a.pth", "torchvision")
    assert not recwarn.list
    assert sp_jax.load(tmp_path / "a.pth").info["step"] == 0


def test_an_interrupted_write_leaves_the_old_file(backbones, tmp_path, monkeypatch):
    path = weights.save(backbones["vit"], tmp_path / "a.safetensors", "timm")
    before = path.read_bytes()

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", crash)
    with pytest.raises(KeyboardInterrupt):
        weights.save(backbones["basic"], path, "torchvision")
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]


@pytest.fixture(scope="module")
def state(backbones):
    backbone = backbones["basic"]
    return tensors(weights.to_torch(backbone.module, backbone.variables))


def test_a_public_checkpoint(backbones, state, tmp_path):
    """Prefixes of the training code, a classifier, and two networks in one file."""
    content = {}
    for encoder in ("encoder_q", "encoder_k"):
        for name, value in state.items():
            content[f"module.{encoder}.{name}"] = value + (encoder == "encoder_k")
        content[f"module.{encoder}.fc.0.weight"] = torch.zeros(8, 512)
    path = tmp_path / "moco.pth.tar"
    torch.save({"epoch": 200, "state_dict": content}, path)
    backbone = sp_jax.load(path)
    wanted = backbones["basic"].variables
    jax.tree.map(np.testing.assert_array_equal, backbone.variables, wanted)
    assert backbone.size == 224 and backbone.mean[0] == 0.485
    left_out = backbone.info["left_out"]
    assert "state_dict.module.encoder_q.fc.0.weight" in left_out
    assert len(left_out) == 2 + len(state)
    said = weights.describe(backbone)
    assert said.startswith("Recognised as a ResNet of 5 blocks (BasicBlock), width 64,")
    assert "images of 224 px, mean (0.485, 0.456, 0.406)" in said
    assert f"; {len(left_out)} left out: state_dict.module.encoder_k.bn1.bias," in said
    assert images_of(str(path)) == {"image_size": 224, "resize": "crop"}


def test_forms_of_checkpoints(backbones, state, tmp_path):
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    gradient = {
        k: torch.nn.Parameter(v, v.is_floating_point()) for k, v in state.items()
    }
    other = {k: v + 1 for k, v in state.items() if "num_batches" not in k}
    trunk = {f"_feature_blocks.{k}": v for k, v in state.items()}
    for content in (
        state,
        gradient,
        {"state_dict": state, "args": argparse.Namespace(lr=0.1)},  # DINO, MAE
        {"student": {"module.backbone": other}, "teacher": {"backbone": state}},  # DINO
        {"classy_state_dict": {"base_model": {"model": {"trunk": trunk}}}},  # VISSL
    ):
        torch.save(content, tmp_path / "a.pth")
        variables = sp_jax.load(tmp_path / "a.pth").variables
        wanted = backbones["basic"].variables
        jax.tree.map(np.testing.assert_array_equal, variables, wanted)
    torch.save(half, tmp_path / "a.pth")
    kernel = sp_jax.load(tmp_path / "a.pth").variables["params"]["conv1"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_allclose(
        kernel, wanted["params"]["conv1"]["kernel"], rtol=1e-3, atol=1e-6
    )


def refused(path, **said):
    with pytest.raises(UserError) as error:
        weights.load(path, **said)
    return str(error.value)


def test_networks_that_cannot_be_used(backbones, state, tmp_path):
    path = tmp_path / "a.pth"

    def refuse(content, **said):
        torch.save(content, path)
        return refused(path, **said)

    assert "it has weight, for example" in refuse({"weight": torch.zeros(3)})
    assert "it holds no arrays" in refuse([1, 2])
    less = {k: v for k, v in state.items() if k != "layer2.0.conv2.weight"}
    assert "1 are missing, such as layer2.0.conv2.weight" in refuse(less)
    other = {**state, "bn1.bias": torch.zeros(7)}
    assert "1 have another shape, such as bn1.bias [7]" in refuse(other)
    two = {f"{net}.{k}": v for net in "ab" for k, v in state.items()}
    assert "several networks, 'a', 'b': name the one" in refuse(two)
    assert "no single network 'c'; it has 'a', 'b'" in refuse(two, network="c")
    vit = backbones["vit"]
    blocks = tensors(weights.to_torch(vit.module, vit.variables))
    del blocks["blocks.0.mlp.fc1.weight"]  # as where a gate is in its place
    assert "its ViT has no blocks.0.mlp.fc1.weight" in refuse(blocks)
    assert "a ResNet has no heads" in refuse(state, heads=2)
    assert "three finite numbers each" in refuse(state, mean=(0.5,))
    file = weights.save(vit, tmp_path / "vit.safetensors", "timm")
    assert "3 heads do not divide dim=128" in refused(file, heads=3)
    assert "cannot take images of 30 px" in refused(file, size=30)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_files_that_cannot_be_read(state, tmp_path):
    assert refused(tmp_path / "a.pth") == f"There is no file {tmp_path / 'a.pth'}."
    with pytest.raises(UserError, match="There is no file .*missing.safetensors"):
        sp_jax.load(tmp_path / "missing.safetensors")
    # A pickle that runs code is not run.
    path = tmp_path / "a.pth"
    torch.save({"state_dict": state, "call": pytest.main}, path)
    assert "holds _pytest.config.main besides arrays" in refused(path)
    torch.save(state, path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    simple = bytearray(pickle.dumps({"a": [1, 2, {"b": "c"}]}, 2))
    for i in range(30):
        changed = simple.copy()
        changed[rng.integers(len(simple))] = rng.integers(256)
        for content in (whole[: rng.integers(1, len(whole))], changed, rng.bytes(i)):
            path.write_bytes(content)
            assert "cannot be used: it" in refused(path)
    (tmp_path / "a.safetensors").write_bytes(b"no")
    assert "it is damaged" in refused(tmp_path / "a.safetensors")
    (tmp_path / "a.pkl").write_bytes(b"no")
    assert "a file that ends in .safetensors, .pth" in refused(tmp_path / "a.pkl")


def test_a_newer_description_is_refused(backbones, tmp_path, monkeypatch):
    described = {"kind": "vit", **VIT, "registers": 4}
    with monkeypatch.context() as patch:
        patch.setattr("sp_jax.weights.vit.description", lambda _: described)
        path = weights.save(backbones["vit"], tmp_path / "a.safetensors", "timm")
    assert "unknown here" in refused(path) and "registers" in refused(path)


def test_what_cannot_be_written(backbones, tmp_path, monkeypatch):
    resnet, vit = backbones["bottleneck"], backbones["vit"]
    small = make(ResNet((1, 1, 1, 1), BasicBlock, width=4, stem="small"))
    for backbone, name, naming, message in (
        (
            resnet,
            "a.zip",
            "timm",
            "must end in .safetensors, .pth, .pkl, or be a folder",
        ),
        (resnet, "a.pth", "detectron2", ".pkl only"),
        (resnet, "a.pth", "keras", "no naming 'keras'"),
        (vit, "a.pkl", "detectron2", "has no ViT of .*choose timm or huggingface"),
        (vit, "a.pth", "torchvision", "choose timm"),
        (small, "folder", "huggingface", "huggingface has no ResNet of .*, small stem"),
    ):
        with pytest.raises(UserError, match=message):
            weights.save(backbone, tmp_path / name, naming)
    usual = builtins.__import__

    def without_torch(name, *rest):
        if name == "torch":
            raise ImportError
        return usual(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    with pytest.raises(UserError, match="needs PyTorch"):
        weights.save(resnet, tmp_path / "a.pth", "timm")
    assert not os.listdir(tmp_path)


def test_a_folder_of_something_else_is_left_alone(backbones, tmp_path):
    weights.save(backbones["vit"], tmp_path / "new", "huggingface")
    weights.save(backbones["basic"], tmp_path / "new", "huggingface")
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert config["model_type"] == "resnet"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(UserError, match="run holds other files"):
        weights.save(backbones["vit"], tmp_path / "run", "huggingface")
    assert (tmp_path / "run" / "config.json").read_text() == "{}"


def test_what_is_no_export_is_never_replaced(backbones, tmp_path):
    vit, folder = backbones["vit"], tmp_path / "folder"
    for name, naming in (("a.safetensors", "timm"), ("a.pth", "timm")):
        (tmp_path / name).write_bytes(b"of another library")
        with pytest.raises(UserError, match=f"{name} exists and is not an export"):
            weights.save(vit, tmp_path / name, naming)
        assert (tmp_path / name).read_bytes() == b"of another library"
        (tmp_path / name).unlink()
        for _ in range(2):
            weights.save(vit, tmp_path / name, naming)
    # An export takes the place of an earlier one, with all that lay beside it.
    weights.save(vit, folder, "huggingface")
    weights.write_card(folder, "of the first")
    weights.save(vit, folder, "timm")
    assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors"]
    weights.write_card(folder, "licence: unknown")
    weights.check_target(folder)
    edited = (folder / "README.md").read_text().replace("unknown", "mine")
    (folder / "README.md").write_text(edited)
    with pytest.raises(UserError, match="README.md was written or changed by hand"):
        weights.save(vit, folder, "timm")


def test_results_of_a_file_are_its_own(tmp_path):
    """Neither those of a run of this name, nor of a file with another suffix."""
    (tmp_path / "sp").mkdir()
    names = ("sp.safetensors", "sp.pth", "sp.pth.tar")
    for name in names:
        (tmp_path / name).touch()
    folders = [run_folder(tmp_path / name) for name in ("sp", *names)]
    assert len(set(folders)) == 4 and folders[2] == tmp_path / "sp.pth.results"


def test_the_commands(tmp_path):
    """Another library's file gets what it does not say, and is evaluated like a run."""
    vit = make(ViT(**VIT | {"heads": 4}))
    state = tensors(weights.to_torch(vit.module, vit.variables))
    torch.save({**state, "head.bias": torch.zeros(3)}, tmp_path / "a.pth")

    def run(module, *options):
        command = [sys.executable, "-m", module, f"--checkpoint={tmp_path / 'a.pth'}"]
        done = subprocess.run([*command, *options], capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    out = tmp_path / "b.safetensors"
    said = ("--heads=4", "--size=48", "--mean=.5,.5,.5")
    code, stdout, stderr = run("sp_jax.export", f"--out={out}", *said)
    assert code == 0, stderr
    assert "4 heads" in stdout and "1 left out: head.bias" in stdout
    backbone = sp_jax.load(out)
    assert (backbone.module.heads, backbone.size) == (4, 48)
    assert (backbone.mean, backbone.std[0]) == ((0.5, 0.5, 0.5), 0.229)

    out = tmp_path / "folder"
    code, stdout, stderr = run("sp_jax.export", f"--out={out}", "--licence=mit")
    assert code == 0, stderr
    assert stdout.endswith(
        "names of timm\nIt can be loaded with timm, transformers and sp_jax.\n"
    )
    card = (out / "README.md").read_text()
    assert "license: mit\n" in card and "a.pth, from another library; 1 of its" in card
    assert sp_jax.load(out).module.heads == 2

    code, _, stderr = run("sp_jax.export", f"--out={out}", "--mean=a,b,c")
    assert code == 2 and stderr.endswith(
        "--mean must be three numbers, separated by commas.\n"
    )

    splits = ("--train_split=probe_train", "--test_split=probe_test")
    code, stdout, stderr = run(
        "eval.knn", "--dataset=emoji", *splits, "--target=category"
    )
    assert code == 0, stderr
    assert "Recognised as a ViT of 2 blocks, width 128, 2 heads" in stdout
    result = json.loads(
        (tmp_path / "a.pth.results/eval/knn_emoji_category.json").read_text()
    )
    assert 0.1 < result["result"]["accuracy"] < 1 and result["step"] == 0
