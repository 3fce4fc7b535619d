"""A method and a backbone from a folder outside the project, named by import path."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

import sp_jax
from eval import finetune
from eval.plots import backbone as plots
from sp_jax import main, methods, models, validate, weights
from sp_jax.errors import UserError
from sp_jax.features import Extractor
from sp_jax.recipe import make_recipe
from sp_jax.sharding import make_mesh
from sp_jax.train.step import init_state, make_step
from tests.train import tiny

ROOT = pathlib.Path(__file__).parents[1]
RUN = methods.RunSize(total_steps=8, steps_per_epoch=4, batch_size=8, num_images=16)

METHOD = """
from sp_jax.methods import simclr
from sp_jax.methods.simclr import OPTIMIZER, RULES, views

def create(backbone, run, *, temperature: float = 0.2, whole: bool = True):
    return simclr.create(
        backbone, run, temperature=temperature, projection_dim=8, projection_layers=2
    )
"""
NET = """
import flax.linen as nn
import jax.numpy as jnp

from sp_jax.models import Facts

class Net(Facts, nn.Module):
    dim: int = 8
    dtype: jnp.dtype = jnp.float32
    patch_size = 4
    first_kernel = ("conv", "kernel")

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(self.dim, (4, 4), 4, dtype=self.dtype, name="conv")(x)
        return nn.relu(x).mean((1, 2)).astype(jnp.float32)

create = Net
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder on Python's path with a package of a method and a network."""
    (tmp_path / "outside").mkdir()
    for name, text in (("__init__", ""), ("method", METHOD), ("net", NET)):
        (tmp_path / "outside" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    forget()


def forget():
    for name in [name for name in sys.modules if name.split(".")[0] == "outside"]:
        del sys.modules[name]


def config_of(**changes):
    config = tiny.get_config()
    config.method = "outside.method"
    config.model.name = "outside.net"  # the width and the stem of a ResNet stay there
    config.method_options = {}
    config.log_every = 1
    config.checkpoint.every = 2
    config.epochs = 3 / 226
    config.optimizer.warmup_epochs = 0.0
    del config.evals.knn
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    return config


@pytest.mark.slow
def test_a_run_trains_goes_on_and_is_probed(folder, monkeypatch):
    run = folder / "run"
    splits = dict(train_split="probe_train", test_split="probe_test")
    config = config_of()
    config.evals.own = dict(type="knn", dataset="emoji", target="category", **splits)
    main.run(config, run)
    wanted = sp_jax.load(run).fingerprint()
    shutil.rmtree(run / "checkpoints" / "3")
    main.run(config, run)  # goes on from step 2
    assert sp_jax.load(run).fingerprint() == wanted
    assert (run / "eval" / "own.json").is_file()
    backbone = sp_jax.load(run)
    assert backbone(np.zeros((2, 16, 16, 3), np.uint8)).shape == (2, 8)
    with pytest.raises(UserError, match="No other library is known to have a Net"):
        weights.save(backbone, folder / "a.safetensors", "timm")

    command = [sys.executable, "-m", "eval.linear_probe", f"--checkpoint={run}"]
    command += ["--dataset=emoji", "--train_split=probe_train", "--target=category"]
    command += ["--test_split=probe_test", "--image_size=16"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((run / "eval/linear_probe_emoji_category.json").read_text())
    assert 0 < result["result"]["accuracy"] < 1

    forget()
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(folder)])
    where = re.escape(str(folder))
    with pytest.raises(UserError, match=f"PYTHONPATH.* modules in {where}") as error:
        sp_jax.load(run)
    assert "\n" not in str(error.value)


def test_a_backbone_of_one_file_has_all_that_is_asked(folder):
    """Fine-tuning, pictures and detection need nothing from another file."""
    net = models.get("outside.net", dim=4)
    assert net.describe() == "Net"
    rules = finetune.layer_rules(net, 0.5)
    names = ["backbone/conv/kernel", "head/kernel"]
    factors = [
        next(r.factor for r in rules if re.search(r.match, name)) for name in names
    ]
    assert factors == [0.5, 1.0]
    recipe = make_recipe(config_of().to_dict(), RUN)
    kernel = np.ones((4, 4, 3, 8), np.float32)
    backbone = recipe.freeze(
        {"backbone": {"conv": {"kernel": kernel, "bias": np.zeros(8)}}},
        {"batch_stats": {}},
    )
    assert plots.first_kernels(backbone).shape == (8, 4, 4, 3)
    with pytest.raises(UserError, match="Only vision transformers"):
        plots.attention(backbone, np.zeros((1, 16, 16, 3), np.uint8))
    with pytest.raises(UserError, match="tokens=mean"):
        Extractor(backbone).of_tokens("mean")


MISTAKES = {
    "no create": ("net", "x = 1", "has no create; it needs create"),
    "no facts": (
        "net",
        NET.replace("Facts, nn", "nn"),
        "derives from sp_jax.models.Fac",
    ),
    "no network": ("net", "create = lambda **options: options", "returns a dict"),
    "no dtype": ("net", NET.replace("    dtype:", "    d:"), "no option 'dtype'"),
    "a map": ("net", NET.replace(".mean((1, 2))", ""), r"float32 \[N, D\]"),
    "half": ("net", NET.replace("float32)\n", "bfloat16)\n"), r"float32 \[N, D\]"),
    "no rules": (
        "method",
        METHOD.replace(", RULES", ""),
        "has no RULES; it needs create",
    ),
    "no method": (
        "method",
        METHOD + "\ncreate = lambda backbone, run: None\n",
        "must return a sp_jax.methods.Method, not a NoneType",
    ),
    "a mistake": (
        "method",
        "import nowhere",
        "cannot be imported: .*method.py, line 1",
    ),
}


def test_a_loss_that_is_no_number(folder):
    text = METHOD.replace("    return simclr", "    method = simclr")
    text += """
    def loss(*args):
        value, out = method.loss(*args)
        return value[None], out

    return method._replace(loss=loss)
"""
    (folder / "outside" / "method.py").write_text(text)
    recipe, mesh = make_recipe(config_of().to_dict(), RUN), make_mesh()
    batch = {
        "image": np.zeros((8, 2, 16, 16, 3), np.uint8),
        "index": np.zeros((8, 2), np.int32),
        "label": np.zeros(8, np.int32),
    }
    state = init_state(recipe, 0, mesh)
    with pytest.raises(UserError, match=r"one number, not an array of shape \[1\]"):
        jax.eval_shape(make_step(recipe, mesh), state, batch)


@pytest.mark.parametrize("case", MISTAKES)
def test_what_lacks_a_part_of_the_contract(case, folder):
    name, text, message = MISTAKES[case]
    (folder / "outside" / f"{name}.py").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        validate.or_user_error(make_recipe, config_of().to_dict(), RUN)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"method_options.other": 1}, "outside.method has no option 'other'"),
        ({"method_options.whole": 1}, "method_options.whole is 1: use True or False"),
        ({"method_options.temperature": "a"}, "temperature is 'a': give a number"),
        ({"model.depth": 1}, "outside.net has no option 'depth'.* it has: dim, dtype"),
        ({"model.dim": "a"}, "config.model.dim is 'a': give a number"),
        ({"image_size": 18}, "patches of 4 px"),
        (
            {"model.name": "outside.nowhere"},
            "cannot be imported: Python finds no outside",
        ),
    ],
)
def test_options_are_checked(change, message, folder):
    with pytest.raises(UserError, match=message):
        validate.or_user_error(make_recipe, config_of(**change).to_dict(), RUN)
