"""The Python snippets of the README run as they stand, and commands of docs as they are."""

import io
import os
import re
import subprocess
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs import quickstart
from sp_jax import weights
from sp_jax.methods import RunSize
from sp_jax.recipe import make_recipe
from tests.input_pipeline.stores.test_archives import cifar_files, write
from tests.test_docs import ROOT, blocks

README = ROOT / "README.md"


def run(snippet):
    """The names that a snippet leaves."""
    names = {}
    exec(compile(snippet, str(README), "exec"), names)
    return names


def test_snippets_do_what_they_promise(tmp_path):
    snippets = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    training, loading = snippets
    assert "range(10)" in training
    first = run(training.replace("range(10)", "range(1)"))["loss"]
    assert run(training)["loss"] < 0.95 * first

    # The checkpoint of the quickstart, without its training.
    config = quickstart.get_config().to_dict()
    recipe = make_recipe(config, RunSize(400, 25, config["batch_size"], 3620))
    views = [jnp.zeros((2, *view.shape)) for view in recipe.views]
    state = jax.jit(recipe.method.init)(jax.random.key(0), views)
    backbone = recipe.freeze(*state, step=400)
    path = weights.save(backbone, tmp_path / "a.safetensors", "torchvision")
    assert "runs/quickstart/semantic" in loading
    loading = loading.replace("runs/quickstart/semantic", str(path))
    shape = run(loading)["features"].shape
    assert f"# {list(shape)}" in loading


def test_a_stranger_reads_it_at_once():
    assert len(README.read_text().splitlines()) <= 150


def test_losses_import_nothing_but_jax():
    code = (
        "import sys, jax, jax.numpy, jax.scipy; before = set(sys.modules)\n"
        "import sp_jax.losses\n"
        "new = {m.partition('.')[0] for m in set(sys.modules) - before}\n"
        "assert new <= {'sp_jax', 'jax', 'jaxlib'}, new"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.slow
def test_commands_on_photographs(tmp_path):
    """From archive to probe by the words of docs/data.md, with a small set in its place."""
    block = next(
        block
        for block in blocks(ROOT / "docs/data.md", "")
        if "tiny-imagenet-200.zip" in block
    )
    rng = np.random.default_rng(0)

    def jpeg():
        file = io.BytesIO()
        pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(file, "JPEG")
        return file.getvalue()

    with zipfile.ZipFile(tmp_path / "tiny-imagenet-200.zip", "w") as archive:
        archive.writestr("tiny-imagenet-200/wnids.txt", "n01\nn02\n")
        archive.writestr("tiny-imagenet-200/words.txt", "n01\tgoldfish\nn02\ttoad\n")
        for i in range(80):
            name = f"train/n0{i % 2 + 1}/images/{i}.JPEG"
            archive.writestr(f"tiny-imagenet-200/{name}", jpeg())
    packed = tmp_path / "cifar-10-python.tar.gz"
    write(packed, "cifar-10-batches-py", cifar_files("cifar10", 0))
    for old, new in {
        "/data/": f"{tmp_path}/",
        "runs/sp": f"{tmp_path}/run",
        "sp.csv": f"{tmp_path}/sp.csv",
        "ap.csv": f"{tmp_path}/ap.csv",
        "--pairs_per_class=157": "--pairs_per_class=20",
        " --workdir": " --config.batch_size=16 --workdir",
        "python ": f"{sys.executable} ",
    }.items():
        assert old in block
        block = block.replace(old, new)
    done = subprocess.run(
        ["bash", "-ec", block],
        cwd=ROOT,
        env={**os.environ, "SP_JAX_DATA": f"{tmp_path}/data", "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/eval/linear_probe_cifar10_label.json").exists()
    with Image.open(tmp_path / "ap.png") as sheet:
        assert sheet.width > 500
