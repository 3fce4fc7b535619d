"""A model card states known facts, and its snippets give the evaluated features."""

import dataclasses
import json
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

import sp_jax
from configs import common
from eval.card import make_card
from eval.evaluator import Number
from eval.results import write_result
from input_pipeline.stores.decode import decode, fit
from sp_jax import weights
from sp_jax.backbone import Backbone
from sp_jax.models.resnet import BasicBlock, Bottleneck, ResNet
from sp_jax.models.vit import ViT
from tests.torchvision_ref import torch  # noqa: F401
from tests.weights.conftest import MEAN, STD, VIT, assert_alike, make

ALL = ["torchvision", "timm", "transformers"]
CROP = {"image_size": 32, "resize": "crop"}
SQUASHED = {"image_size": 48, "resize": "squash"}
NETWORKS = {
    "basic": ResNet((1, 2, 1, 1), BasicBlock),
    "bottleneck": ResNet((1, 1, 1, 1), Bottleneck),
    "small": ResNet((1, 1, 1, 1), BasicBlock, stem="small"),
    "narrow": ResNet((1, 1, 1, 1), BasicBlock, width=16),
    "vit": ViT(**VIT),
}


def export(backbone, folder, naming, checkpoint):
    text = make_card(backbone, checkpoint, naming, "net")
    weights.write_card(weights.save(backbone, folder, naming), text)
    return (folder / "README.md").read_text()


def imported(name, tmp_path, images=CROP):
    """A network of a file, with the file."""
    backbone = dataclasses.replace(make(NETWORKS[name]), info={"images": images})
    path = weights.save(backbone, tmp_path / "net.safetensors", "timm")
    return sp_jax.load(path), path


@pytest.mark.parametrize(
    "name, images, naming, libraries",
    [
        ("basic", CROP, "torchvision", ALL),
        ("bottleneck", SQUASHED, "huggingface", ["transformers"]),
        ("small", SQUASHED, "torchvision", ALL[:2]),
        ("narrow", CROP, "huggingface", ["transformers"]),
        ("narrow", CROP, "timm", []),
        ("vit", SQUASHED, "timm", ALL[1:]),
        ("vit", CROP, "huggingface", ["transformers"]),
    ],
)
def test_snippets(name, images, naming, libraries, tmp_path, monkeypatch):
    """Run from the text of the card, in its folder."""
    for library in libraries:
        pytest.importorskip(library)
    backbone, path = imported(name, tmp_path, images)
    text = export(backbone, tmp_path / "folder", naming, path)
    found = dict(re.findall(r"### (\w+)\n\n```python\n(.*?)```", text, re.DOTALL))
    assert list(found) == ["sp_jax", *["images"][: len(libraries)], *libraries]

    monkeypatch.chdir(tmp_path / "folder")
    rng = np.random.default_rng(0)
    turned = Image.Exif()
    turned[0x0112] = 6
    noise = Image.fromarray(rng.integers(0, 256, (80, 97, 3), np.uint8))
    noise.save("image.jpg", exif=turned)
    content = pathlib.Path("image.jpg").read_bytes()
    want = backbone(decode(content, *images.values())[None])
    for library in ("sp_jax", *libraries):
        names = {}
        if library != "sp_jax":
            exec(found["images"], names)
        exec(found[library], names)
        assert f"# float32 {list(names['features'].shape)}" in found[library]
        assert_alike(names["features"], want)


@pytest.mark.parametrize("images", [CROP, {**SQUASHED, "image_size": 32}])
def test_images_by_the_means_of_the_libraries(images, tmp_path):
    """What lies beside the weights prepares them as here, where sides need no rounding."""
    timm, transformers = map(pytest.importorskip, ("timm", "transformers"))
    backbone, _ = imported("vit", tmp_path, images)
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (80, 96, 3), np.uint8))
    want = backbone.preprocess(fit(image, *images.values())[None])
    want = np.moveaxis(want, -1, 1)
    folder = weights.save(backbone, tmp_path / "timm", "timm")
    network = timm.create_model(f"local-dir:{folder}", pretrained=True)
    options = timm.data.resolve_model_data_config(network)
    level = 1.5 / 255 / min(STD)  # a rounding of the pixels may fall the other way
    got = timm.data.create_transform(**options)(image)[None]
    np.testing.assert_allclose(got, want, atol=level)
    folder = weights.save(backbone, tmp_path / "transformers", "huggingface")
    prepare = transformers.AutoImageProcessor.from_pretrained(folder)
    got = prepare(image, return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(got, want, atol=level)


def test_what_is_said_of_what_loads_it():
    networks = {
        name: Backbone(module, {}, 32, MEAN, STD) for name, module in NETWORKS.items()
    }
    networks["stretched"] = dataclasses.replace(networks["vit"], size=64)
    for name, naming, said in (
        ("basic", "timm", ".* with torchvision, timm, transformers and sp_jax"),
        ("narrow", "torchvision", "torchvision has no .* width 16, .*=huggingface"),
        ("small", "huggingface", "transformers has no .*: --format=torchvision"),
        ("stretched", "timm", "timm has no .* 32 px stretched to 64 px.*: only sp_jax"),
    ):
        assert re.match(said, weights.describe_loaders(networks[name], naming))
    assert {
        name: weights.choose_naming(network) for name, network in networks.items()
    } == {
        "basic": "torchvision",
        "bottleneck": "torchvision",
        "small": "torchvision",
        "narrow": "huggingface",
        "vit": "timm",
        "stretched": "timm",
    }


def test_a_run(tmp_path):
    """Its facts, the results of its very weights, and nothing of where it lay."""
    config = common.get_config().to_dict()
    config["data"] |= {"store": "folder:/home/me/photos", "split": "train"}
    pairs = {"recipe": {"by": "labels", "rounds": 1}, "same": 0.0, "store": "00ff"}
    info = {
        "config": config,
        "step": 30,
        "run": {
            "total_steps": 60,
            "steps_per_epoch": 20,
            "batch_size": 8,
            "num_images": 1234,
        },
        "pairs": pairs,
        "versions": {"sp_jax": "0.1.0", "jax": "0.12"},
    }
    backbone = dataclasses.replace(make(NETWORKS["basic"]), info=info)
    start = {"date": "2026-11-01T00:00", "step": 0, "device": "8 x NVIDIA H200"}
    (tmp_path / "starts.jsonl").write_text(json.dumps(start) + "\n")

    def result(name, value, step=30, weights=None, **options):
        write_result(
            tmp_path,
            name,
            {"accuracy": value},
            protocol="kNN, folder:/home/me/photos a|b",
            headline=[Number("accuracy", chance=0.1)],
            step=step,
            weights=weights,
            images={"test": "aa"},
            **options,
        )

    result("knn", 0.75, weights=backbone.identity())
    result("knn", 0.25, step=0, untrained=True)
    result("other_step", 0.5, step=20)
    result("other_weights", 0.5, weights="ffff")
    text = export(backbone, tmp_path / "net", "timm", tmp_path)
    for said in (
        "| **data** | folder:…/photos, split train: 1,234 images are shown",
        '| **pairs** | semantic pairs (SP), of two different images; made by `{"by": "lab',
        "| **steps** | 30 of 60, of 8 pairs each: 1.5 epochs; seed 0 |",
        "| **trained with** | sp_jax 0.1.0, jax 0.12; 8 x NVIDIA H200; started on 2026-11-01",
        r"| knn | accuracy | 0.7500 | 0.2500 | 0.1000 | kNN, folder:…/photos a\|b |",
        "| **licence** | unknown: set it before publishing |",
        f"\nbatch_size = {config['batch_size']}\n",
    ):
        assert said in text
    assert "other_" not in text
    assert "/home" not in text and str(tmp_path) not in text


def test_metadata(tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    expected = {
        "license": "unknown",
        "library_name": "timm",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["sp_jax", "self-supervised-learning"],
    }
    backbone, path = imported("vit", tmp_path)
    for licence, license in (
        (None, {}),
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("Ask: us", {"license": "other", "license_name": "Ask: us"}),
    ):
        text = make_card(backbone, path, "timm", "net", licence)
        assert hub.ModelCard(text).data.to_dict() == expected | license
    assert "| **licence** | Ask: us |" in text
    assert "| **origin** | imported from net.safetensors, an earlier export |" in text
    assert "| **data** | unknown: the file of weights does not say it |" in text
    assert "No evaluation of these weights is on record." in text


def test_what_the_snippets_are_tested_with():
    file = pathlib.Path(__file__).parents[2] / "requirements-test.txt"
    pins = re.findall(r"^(\w+)==(\S+)$", file.read_text(), re.MULTILINE)
    assert weights.TESTED.items() <= dict(pins).items()
