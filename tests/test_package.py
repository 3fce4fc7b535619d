"""What `pip install .` installs, and that it works beside a user's own modules."""

import ast
import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import types
import urllib.request
import zipfile

import jax
import jax.numpy as jnp
import pytest

from sp_jax import models, weights
from sp_jax.backbone import Backbone

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("configs", "eval", "input_pipeline", "sp_jax")


def tracked(*folders):
    """The files of these folders that git knows: not what a user left there."""
    command = ["git", "ls-files", "-z", *folders]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no checkout of git")
    return [name for name in done.stdout.decode().split("\0") if name]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of what git knows."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in (*tracked(*PACKAGES), *tracked(":(top,glob)*")):
        copy = folder / "source" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy)
    build = "from setuptools import build_meta; build_meta.build_wheel('..')"
    subprocess.run(
        [sys.executable, "-c", build],
        cwd=folder / "source",
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (file,) = folder.glob("*.whl")
    return file


def test_the_wheel_holds_every_file(wheel):
    """Modules and pages, pictures, archives: a new one cannot be forgotten."""
    with zipfile.ZipFile(wheel) as archive:
        found = {n for n in archive.namelist() if n.partition("/")[0] in PACKAGES}
    assert found == set(tracked(*PACKAGES))
    assert "sp_jax/py.typed" in found  # so that a type checker reads our annotations


RECIPE = """
from configs import quickstart

def get_config():
    config = quickstart.get_config()
    config.image_size = config.batch_size = 16
    config.model.width = 8
    config.epochs = 5 / 406  # 6,500 pairs
    config.optimizer.warmup_epochs = 0.0
    config.log_every = 1
    config.evals = {}
    return config
"""


@pytest.mark.slow
def test_the_wheel_in_a_fresh_environment(wheel, tmp_path):
    """Installed beside an older jax, outside the checkout: import, train, curate."""
    ours = ("PYTHONPATH", "JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    quick = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}  # to compile
    environment = {**kept, **quick, "SP_JAX_DATA": str(tmp_path / "data")}
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)

    def python(*words, **options):
        command = [tmp_path / "venv/bin/python", *words]
        options = {"check": True, "text": True, "stdout": subprocess.PIPE} | options
        return subprocess.run(command, cwd=tmp_path, env=environment, **options).stdout

    try:
        python("-m", "pip", "download", "--no-deps", "--dest=probe", "wadler-lindig")
    except subprocess.CalledProcessError:
        pytest.skip("no package registry can be reached")
    older = "jax<0.11"
    python("-m", "pip", "install", "--quiet", f"{wheel}[train,curate]", older)
    python("-m", "pip", "check")
    there = python("-c", "import sp_jax.losses, jax; print(jax.__version__)")
    assert there.startswith("0.10.")

    (tmp_path / "recipe.py").write_text(RECIPE)
    python("-m", "sp_jax.main", "--config=recipe.py", "--workdir=run")
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 5
    code = "import sp_jax; print(sp_jax.load('run').info['step'])"
    assert python("-c", code) == "5\n"

    words = ("--store=emoji", "--pairs=run/pairs.csv", "--port=0", "--split=pretrain")
    command = [tmp_path / "venv/bin/python", "-m", "input_pipeline.curate", *words]
    page = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        address = re.search(r"http://\S+", page.stdout.readline())[0]
        with urllib.request.urlopen(address) as answer:
            assert b"<html" in answer.read()
    finally:
        page.terminate()  # what runs in the background may ignore SIGINT
        page.communicate()


def test_the_library_imports_no_other_package_of_ours():
    """A user's own `eval.py` or `configs/` is nothing to `import sp_jax`."""
    others = set(PACKAGES) - {"sp_jax"}
    for path in (ROOT / "sp_jax").rglob("*.py"):
        if path in {ROOT / "sp_jax" / name for name in ("main.py", "export.py")}:
            continue  # these commands put the packages together
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            found = others & {name.partition(".")[0] for name in names}
            assert not found, f"{path}:{node.lineno} imports {found}"


@pytest.fixture
def folder(tmp_path):
    """A user's folder, with modules that have the names of ours."""
    for name in ("configs/__init__.py", "eval.py", "input_pipeline/__init__.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("raise RuntimeError('this is the file of the user')\n")
    (tmp_path / "mine.py").write_text("STORE = 'folder:nowhere'\n")
    (tmp_path / "recipe.py").write_text(
        "import mine\n"
        "from configs import common\n\n"
        "def get_config():\n"
        "    config = common.get_config()\n"
        "    config.data.store = mine.STORE\n"
        "    return config\n"
    )
    return tmp_path


def python(folder, *words):
    """Run Python there, with the packages installed: they are found after the folder."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_load_beside_modules_of_the_same_names(folder):
    module = models.get("resnet18", width=4, zero_init_residual=False)
    images = jnp.zeros((1, 32, 32, 3))
    variables = jax.jit(lambda key: module.init(key, images, False))(jax.random.key(0))
    backbone = Backbone(module, variables, 32, (0.5,) * 3, (0.2,) * 3)
    weights.save(backbone, folder / "a.safetensors", "torchvision")
    done = python(
        folder, "-c", "import sp_jax; print(sp_jax.load('a.safetensors').size)"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "32\n"


def test_train_beside_modules_of_the_same_names(folder):
    """A config gets our `configs`, and still what else lies beside it."""
    done = python(folder, "-m", "sp_jax.main", "--config=recipe.py")
    assert done.returncode == 2, done.stderr
    assert "nowhere" in done.stderr


def test_evaluate_beside_modules_of_the_same_names(folder):
    """Python itself finds the user's `eval.py` first, unless -P forbids it."""
    words = ("-m", "eval.knn", "--checkpoint=a", "--dataset=folder:nowhere")
    done = python(folder, "-P", *words)
    assert done.returncode == 2, done.stderr
    (folder / "eval.py").unlink()  # the others are no obstacle
    done = python(folder, *words)
    assert done.returncode == 2, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("eval.detection_figure", "nowhere"),
        ("input_pipeline.make_scenes", "--out=/dev"),
    ],
)
def test_commands_have_their_old_names_too(tmp_path, words):
    done = python(tmp_path, "-m", *words)
    assert done.returncode == 2 and done.stderr.startswith("error: "), done.stderr


def test_torchvision_is_changed_only_where_it_cannot_be_imported(monkeypatch):
    torchvision_ref = pytest.importorskip("tests.torchvision_ref")
    torch = torchvision_ref.torch
    needs = " ".join(importlib.metadata.requires("torchvision"))
    pins = (ROOT / "requirements-test.txt").read_text().splitlines()
    (version,) = (p.partition("==")[2] for p in pins if p.startswith("torch=="))
    assert re.search(rf"torch ?\(?=={re.escape(version)}\b", needs)

    sound, declared = types.ModuleType("torchvision"), []
    monkeypatch.setitem(sys.modules, "torchvision", sound)
    monkeypatch.setattr(torch.library, "define", lambda *words: declared.append(words))
    assert torchvision_ref.load() is sound and not declared
