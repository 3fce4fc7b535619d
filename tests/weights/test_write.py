"""A failed write gives its reason, and leaves no files behind."""

import contextlib
import os
import resource
import signal

import jax
import numpy as np
import pytest

import sp_jax
from eval.cli import images_of
from sp_jax import cli, weights
from sp_jax.errors import UserError

TARGETS = {
    "a.safetensors": "timm",
    "a.pth": "timm",
    "a.pkl": "detectron2",
    "folder": "huggingface",
}


@contextlib.contextmanager
def files_of_at_most(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("name", TARGETS)
def test_a_full_disk(backbones, name, tmp_path):
    backbone = backbones["bottleneck" if name == "a.pkl" else "vit"]
    path = tmp_path / name
    with files_of_at_most(2**16), pytest.raises(OSError) as error:
        weights.save(backbone, path, TARGETS[name])
    said = cli.describe_os_error(error.value)
    assert str(path) in said and "the file would exceed the size limit" in said
    assert all(p == path and not os.listdir(p) for p in tmp_path.iterdir())
    weights.save(backbone, path, TARGETS[name])
    before = {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with files_of_at_most(2**16), pytest.raises(OSError):
        weights.save(backbone, path, TARGETS[name])
    after = {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert after == before


def test_targets_that_are_in_the_way(backbones, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "a.pth").mkdir()
    vit = backbones["vit"]
    with pytest.raises(UserError, match="a.pth is a folder: give the name of a new"):
        weights.save(vit, tmp_path / "a.pth", "timm")
    with pytest.raises(UserError, match="file is a file: give a new folder"):
        weights.save(vit, tmp_path / "file", "huggingface")
    with pytest.raises(OSError) as error:
        weights.save(vit, tmp_path / "file" / "a.pth", "timm")
    assert "file' cannot be used: it exists" in cli.describe_os_error(error.value)
    for name, naming in (("n" * 255 + ".pth", "timm"), ("n" * 300, "huggingface")):
        with pytest.raises(OSError) as error:
            weights.save(vit, tmp_path / name, naming)
        assert "the name is too long" in cli.describe_os_error(error.value)
    # The longest name that a file may have.
    weights.save(vit, tmp_path / f"{'n' * 251}.pth", "timm")
    assert len(os.listdir(tmp_path)) == 3


def test_an_exported_folder_is_a_checkpoint(backbones, tmp_path):
    for name, naming in (("vit", "huggingface"), ("basic", "torchvision")):
        folder = weights.save(backbones[name], tmp_path / name, naming)
        again = sp_jax.load(folder)
        wanted = backbones[name].variables
        jax.tree.map(np.testing.assert_array_equal, again.variables, wanted)
        assert again.info["step"] == 70
        assert images_of(str(folder)) == {"image_size": 48, "resize": "squash"}
    (tmp_path / "vit" / "model.safetensors").unlink()
    with pytest.raises(UserError):
        sp_jax.load(tmp_path / "vit")


def test_a_folder_of_transformers_says_what_no_shape_tells(tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = dict(hidden_size=128, num_hidden_layers=1, intermediate_size=64)
    config = transformers.ViTConfig(
        **sizes, num_attention_heads=4, image_size=32, patch_size=8
    )
    transformers.ViTModel(config).save_pretrained(tmp_path)
    processor = transformers.ViTImageProcessor(
        image_mean=[0.1] * 3, image_std=[0.9] * 3
    )
    processor.save_pretrained(tmp_path)
    backbone = sp_jax.load(tmp_path)
    assert (backbone.module.heads, backbone.size) == (4, 32)
    assert (backbone.mean, backbone.std) == ((0.1,) * 3, (0.9,) * 3)
    config.hidden_act = "quick_gelu"
    config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="config.json says hidden_act='quick_gelu'"):
        sp_jax.load(tmp_path)
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(UserError, match="config.json is damaged"):
        sp_jax.load(tmp_path)
