"""The libraries that a part needs are an extra, and a sentence says if one is missing."""

import importlib.metadata
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sp_jax import extras, models, weights
from sp_jax.backbone import Backbone

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Optax itself needs absl.
ALL = {module for names in extras.MODULES.values() for module in names} - {"absl"}

HIDE = """
import importlib.machinery

find = importlib.machinery.PathFinder.find_spec
importlib.machinery.PathFinder.find_spec = lambda name, path=None, target=None: (
    None if name.partition(".")[0] in {hidden} else find(name, path, target)
)
"""


def python(folder, hidden, *words):
    """Run Python there as if some modules were not installed."""
    (folder / "sitecustomize.py").write_text(HIDE.format(hidden=set(hidden)))
    path = os.pathsep.join(map(str, (folder, ROOT)))
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


LIBRARY = """
import importlib, pkgutil
import sp_jax

packages = [f"sp_jax.{name}" for name in "losses augment models optim methods weights".split()]
for package in packages:
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")
for name in "backbone export features neighbours recipe sharding tokens".split():
    importlib.import_module(f"sp_jax.{name}")
print(sp_jax.load("a.safetensors").fingerprint())
sp_jax.load(".")
"""


def test_the_library_needs_no_extra(tmp_path):
    module = models.get("resnet18", width=4, zero_init_residual=False)
    images = jnp.zeros((1, 32, 32, 3))
    shapes = jax.eval_shape(lambda k: module.init(k, images, False), jax.random.key(0))
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    backbone = Backbone(module, variables, 32, (0.5,) * 3, (0.2,) * 3)
    weights.save(backbone, tmp_path / "a.safetensors", "torchvision")
    done = python(tmp_path, ALL, "-c", LIBRARY)
    assert done.stdout == f"{backbone.fingerprint()}\n", done.stderr
    command = re.escape(extras.install("train"))
    said = rf"UserError: Loading a run needs \w+, .*: {command}\.\n$"
    assert re.search(said, done.stderr), done.stderr


@pytest.mark.parametrize(
    "extra, words",
    [
        ("train", ("sp_jax.main", "--config=a.py")),
        ("train", ("eval.knn", "--checkpoint=run")),
        ("train", ("input_pipeline.prepare", "--store=emoji")),
        ("eval", ("eval.report", "--out=page", "run")),
        (
            "detection",
            (
                "eval.detection",
                f"--config={ROOT}/configs/eval/scenes_faster_rcnn_c4.py",
            ),
        ),
        ("curate", ("input_pipeline.curate", "--store=emoji", "--pairs=a.csv")),
        (
            "wandb",
            (
                *("sp_jax.main", f"--config={ROOT}/tests/train/tiny.py"),
                "--config.loggers=('wandb',)",
            ),
        ),
        ("tfds", ("input_pipeline.prepare", "--store=tfds:cifar10")),
        ("hf", ("input_pipeline.prepare", "--store=hf:cifar10")),
    ],
)
def test_a_program_says_what_to_install(tmp_path, extra, words):
    done = python(tmp_path, set(extras.MODULES[extra]) - {"absl"}, "-m", *words)
    said = rf"error: .+ needs \w+, .*: {re.escape(extras.install(extra))}\.\n"
    assert done.returncode == 2 and re.fullmatch(said, done.stderr), done.stderr


def test_what_is_asked_for_is_what_an_extra_installs():
    """The names of modules in the code, and those of packages in pyproject.toml."""
    given = importlib.metadata.packages_distributions()
    for extra, modules in extras.MODULES.items():
        listed = [Requirement(r) for r in PROJECT["optional-dependencies"][extra]]
        names = {canonicalize_name(r.name) for r in listed}
        names |= {canonicalize_name(r) for r in nested(listed)}
        for module in modules:
            # What is not installed here is called like its module.
            packages = given.get(module, [module])
            assert names & {canonicalize_name(d) for d in packages}, module


def nested(listed):
    """The packages of the extras that are named in another."""
    for extra in (e for r in listed if r.name == "sp_jax" for e in r.extras):
        for text in PROJECT["optional-dependencies"][extra]:
            yield Requirement(text).name


def test_what_is_tested_lies_in_the_ranges():
    tables = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    ranges = [Requirement(text) for table in tables for text in table]
    text = re.sub(r" *#.*", "", (ROOT / "requirements.txt").read_text())
    pins = [Requirement(line) for line in text.splitlines() if line]
    assert len(pins) > 20
    for pin in pins:
        (version,) = (s.version for s in pin.specifier)
        name = canonicalize_name(pin.name)
        mine = [r.specifier for r in ranges if canonicalize_name(r.name) == name]
        assert mine and all(s.contains(version) for s in mine), pin
