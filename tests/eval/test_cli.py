"""The command lines, on the embedded images, with pixels for a backbone."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from eval import linear_probe, results

ROOT = pathlib.Path(__file__).parents[2]
SPLITS = ("--train_split=probe_train", "--test_split=probe_test", "--target=category")

# In the place of the trainer's loader: 8x8 pixels as features.
LAUNCH = """
import runpy, sys, types
import numpy as np

def features(images):
    print("images of", images.shape[1], "px", file=sys.stderr)
    cell = images.shape[1] // 8
    return images.reshape(-1, 8, cell, 8, cell, 3).mean((2, 4)).reshape(len(images), -1)

restore = types.ModuleType("sp_jax.train.restore")
features.info = {"config": {}, "step": 70}
def load_backbone(path, untrained):
    assert untrained == ("--untrained" in sys.argv)
    return features

restore.load_backbone = load_backbone
sys.modules["sp_jax.train.restore"] = restore
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    data = tmp_path_factory.mktemp("data")

    def run(module, *arguments):
        return subprocess.run(
            [sys.executable, "-c", LAUNCH, module, *arguments],
            cwd=ROOT,
            env={**os.environ, "SP_JAX_DATA": str(data)},
            capture_output=True,
            text=True,
        )

    return run


@pytest.mark.parametrize(
    "module, options, key, low, high",
    [
        ("eval.knn", (*SPLITS, "--k=10", "--name=k10"), "accuracy", 0.3, 0.8),
        (
            "eval.linear_probe",
            (*SPLITS, "--epochs=20", "--learning_rates=0.01,0.1"),
            "accuracy",
            0.3,
            0.8,
        ),
        ("eval.few_labels", (*SPLITS, "--amounts=2%,3"), "std_3_a_class", 1e-3, 0.1),
        (
            "eval.metrics",
            ("--split=probe_test", "--untrained"),
            "distance_ratio",
            0.5,
            1,
        ),
        ("eval.retrieval", ("--splits=probe_test,probe_train",), "top1", 0.02, 0.5),
    ],
)
def test_evaluates_and_writes_into_the_run(
    launch, tmp_path, module, options, key, low, high
):
    checkpoint = tmp_path / "checkpoints" / "70"
    checkpoint.mkdir(parents=True)
    done = launch(module, f"--checkpoint={checkpoint}", "--dataset=emoji", *options)
    assert done.returncode == 0, done.stderr
    name = "k10" if module == "eval.knn" else f"{module.removeprefix('eval.')}_emoji"
    target = {"eval.linear_probe": "_category", "eval.few_labels": "_category"}
    name += target.get(module, "_label" if module == "eval.metrics" else "")
    folder = tmp_path / "eval" / ("untrained" if "--untrained" in options else "")
    path = folder / f"{name}.json"
    assert os.listdir(path.parent) == [path.name]
    written = json.loads(path.read_text())
    assert low < written["result"][key] < high
    assert written["step"] == 70 and written["versions"]["jax"]
    assert written["evaluator"] == module.removeprefix("eval.")
    assert written["options"]["dataset"] == "emoji" and written["options"]["resize"]
    lines = done.stdout.splitlines()
    assert lines[0] == f"{written['protocol']}, step 70"
    shown = {line[2:].rsplit("  (chance")[0] for line in lines[1:-1]}
    for number in written["headline"]:
        value = f"{written['result'][number['name']]:.4f}"
        name = number["name"].replace("_", " ")
        assert any(x.startswith(name) and x.endswith(f"  {value}") for x in shown)
    assert len(shown) == len(written["headline"])
    assert lines[-1] == f"written to {path}"
    if module == "eval.linear_probe":
        assert "2x5 learning rates" in lines[0]


def test_images_are_prepared_as_those_of_the_run(launch, tmp_path):
    config = {"data": {"image_size": 32, "resize": "squash"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = launch("eval.knn", f"--checkpoint={tmp_path}", "--dataset=emoji", *SPLITS)
    assert done.returncode == 0 and "images of 32 px" in done.stderr, done.stderr
    done = launch(
        *("eval.knn", f"--checkpoint={tmp_path}", "--dataset=emoji", *SPLITS),
        *("--image_size=64", "--max_skipped=0.5", f"--workdir={tmp_path / 'other'}"),
    )
    assert done.returncode == 0 and "images of 64 px" in done.stderr, done.stderr
    assert os.listdir(tmp_path / "other/eval") == os.listdir(tmp_path / "eval")


@pytest.mark.parametrize(
    "options, message",
    [
        ((*SPLITS, "--dataset=nothing"), "There is no store 'nothing'"),
        # Before any image is prepared.
        ((*SPLITS, "--dataset=no", "--checkpoint=/no/run"), "no folder /no/run"),
        (
            (*SPLITS, "--dataset=emoji", "--k=0"),
            "k must be a whole number of at least 1",
        ),
    ],
)
def test_a_mistake_is_one_line_and_code_2(launch, tmp_path, options, message):
    done = launch("eval.knn", f"--checkpoint={tmp_path}", *options)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "eval").exists()


def test_help_explains_every_option(launch):
    shown = launch("eval.linear_probe", "--help").stdout
    options = [field.name for field in dataclasses.fields(linear_probe.Options)]
    for option in (*options, "checkpoint", "name"):
        assert re.search(rf"--{option}: \S", shown)
    assert "the L2 penalties to try, each with each learning rate." in shown


def test_run_folder_of_a_run_its_checkpoints_and_a_step(tmp_path, monkeypatch):
    for path in (
        tmp_path,
        tmp_path / "checkpoints",
        tmp_path / "checkpoints" / "30",
    ):
        assert results.run_folder(path) == tmp_path
    run = tmp_path / "checkpoints" / "run"  # Of a user who keeps runs in such a folder.
    assert results.run_folder(run) == run
    (tmp_path / "checkpoints").mkdir()
    monkeypatch.chdir(tmp_path / "checkpoints")
    assert results.run_folder("30") == tmp_path
