"""The suite measures everything once, and writes one page."""

import base64
import csv
import html
import io
import json
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from eval import knn, suite
from eval.results import run_folder
from sp_jax import models, weights
from sp_jax.backbone import Backbone
from sp_jax.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Class folders: three colours, 10 images each to fit on and 8 to test."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("val", 8)):
        for label, name in enumerate(("red", "green", "blue")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                colour = 90 + 90 * np.eye(3)[label]
                pixels = colour + 40 * rng.standard_normal((16, 16, 3))
                image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
                image.save(root / split / name / f"{i}.png")
    return root


@pytest.fixture
def networks(tmp_path):
    """Two files of weights, each in a folder of its own."""
    module = models.get(
        "vit_tiny", dim=64, depth=1, heads=1, patch_size=8, image_size=16
    )
    half = (0.5, 0.5, 0.5)
    images = jnp.zeros((1, 16, 16, 3))
    paths = []
    for seed in range(2):
        variables = jax.jit(lambda key: module.init(key, images, False))(
            jax.random.key(seed)
        )
        backbone = Backbone(module, variables, 16, half, half, {"step": 5})
        path = tmp_path / f"net{seed}.safetensors"
        paths.append(str(weights.save(backbone, path, "timm")))
    return paths


@pytest.mark.slow
def test_everything_on_one_page(folder, networks, tmp_path, monkeypatch):
    monkeypatch.setenv("SP_JAX_DATA", str(tmp_path / "data"))
    # Not as long as they should be.
    fast = {
        "linear_probe": {"epochs": 2},
        "finetune": {"epochs": 2, "warmup_epochs": 1},
    }
    plan = suite.plan

    def shorter(dataset, kinds, prepared):
        entries = plan(dataset, kinds, {"image_size": 16})
        for entry in entries:
            entry.options.update(fast.get(entry.kind, {}))
        return entries

    monkeypatch.setattr(suite, "plan", shorter)
    out = tmp_path / "suite"
    name = f"folder:{folder}"
    ((dataset, table, comparison),) = suite.run(
        networks, [name], suite.EVALUATIONS, out
    )
    entries = suite.plan(name, suite.EVALUATIONS, {})
    assert dataset == name
    assert list(comparison.protocols) == [entry.name for entry in entries]
    files = ["net0.safetensors", "net1.safetensors"]
    assert table[0][:3] + table[0][-2:] == ["evaluation", "measure", "chance", *files]
    entry = next(e for e in shorter(name, ["knn"], {}) if e.kind == "knn")
    written = json.loads(
        (run_folder(networks[0]) / "eval" / f"{entry.name}.json").read_text()
    )
    row = next(row for row in table if row[0] == entry.name)
    number = row[1].replace(" ", "_")
    assert row[-2] == f"{written['result'][number]:.3f}" and written["step"] == 5

    page = (out / "suite.html").read_text()
    shown = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    # The invariances; map, attention and filters of two networks.
    assert len(shown) == 1 + 3 * 2
    for picture in shown:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))
        assert pixels[..., :3].std() > 5
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert written["protocol"] in html.unescape(page)
    with open(out / "suite.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    (found,) = (
        row["value"]
        for row in rows
        if row["checkpoint"] == networks[0]
        and (row["evaluation"], row["measure"]) == (entry.name, "accuracy")
    )
    assert float(found) == written["result"]["accuracy"]


def test_what_fails_is_named_and_the_rest_is_shown(
    folder, networks, tmp_path, monkeypatch
):
    monkeypatch.setenv("SP_JAX_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(suite, "draw", lambda *args: [])
    once = suite.evaluate_once

    def evaluate_once(evaluate, extractor, path, name, **more):
        if str(path) == networks[0] or name.startswith("metrics"):
            raise UserError("It diverged.")
        return once(evaluate, extractor, path, name, **more)

    monkeypatch.setattr(suite, "evaluate_once", evaluate_once)
    out = tmp_path / "suite"
    with pytest.raises(UserError, match=r"is written, without what failed \(3\)"):
        suite.run(networks, [f"folder:{folder}"], ["knn", "metrics"], out)
    page = (out / "suite.html").read_text()
    assert page.count("It diverged.") == 3 and "accuracy" in page
    with pytest.raises(UserError, match="Nothing could be measured"):
        suite.run(networks[:1], [f"folder:{folder}"], ["knn"], out)


def test_targets_of_the_drawings():
    entries = suite.plan("emoji", suite.EVALUATIONS, {})
    assert len({entry.name for entry in entries}) == len(entries)
    targets = [entry.target for entry in entries if entry.module is knn]
    assert targets == ["category", "subcategory"]
    assert {entry.kind for entry in entries} == set(suite.EVALUATIONS)
    for entry in entries:
        entry.module.create(**entry.options)


def test_what_is_not_there_is_said(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SP_JAX_DATA", str(tmp_path / "data"))
    with pytest.raises(UserError, match="no evaluation 'knnn'"):
        suite.run([], ["emoji"], ["knnn"], tmp_path)
    with pytest.raises(UserError, match="Give one --checkpoint or more"):
        suite.run([], ["emoji"], ["knn"], tmp_path)
    with pytest.raises(UserError, match="There is no store 'no'"):
        suite.plan("no", ["knn"], {})
    with pytest.raises(UserError, match="has no splits"):
        suite.plan(f"folder:{folder / 'train'}", ["knn"], {})


@pytest.mark.parametrize(
    ("module", "flags", "message"),
    [
        ("eval.suite", ["--datasets=no"], "There is no folder nowhere"),
        ("eval.figures", ["--points=3"], "at least 10 points"),
    ],
)
def test_the_commands_report_a_mistake(module, flags, message):
    command = [sys.executable, "-m", module, "--checkpoint=nowhere", *flags]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    assert message in done.stderr


def test_names_of_folders_are_short_and_differ():
    names = ["emoji", "folder:/a-b", "folder:/a_b", "x" * 300, "x" * 301]
    folders = [suite._folder_name(name) for name in names]
    assert folders[0] == "emoji" and len(set(folders)) == len(names)
    assert max(map(len, folders)) < 100
