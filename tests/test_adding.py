"""The modules of docs/adding.md and CONTRIBUTING.md work as the pages say.

Those of docs/data.md and docs/evaluation.md have tests of their own.
"""

import importlib
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import optax
import pytest

from sp_jax import methods, models, optim, validate
from sp_jax.config import load_config
from sp_jax.train import loggers
from tests.methods import recipe_steps

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "adding.md"


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The blocks as modules `added.method`, `added.loss`, ... by the page's headings."""
    folder = tmp_path_factory.mktemp("adding")
    (folder / "added").mkdir()
    for section in PAGE.read_text().split("\n## ")[1:]:
        name = section.split("\n")[0].split()[-1]
        for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
            (folder / "added" / f"{name}.py").write_text(block)
    names = sorted(path.stem for path in (folder / "added").glob("*.py"))
    assert names == ["backbone", "logger", "loss", "method", "optimiser"]
    sys.path.insert(0, str(folder))
    yield "added"
    sys.path.remove(str(folder))


def test_method_backbone_and_optimiser_learn_together(package):
    backbone = models.get(f"{package}.backbone", dim=16)
    module = methods.get(f"{package}.method")
    run = methods.RunSize(total_steps=8, steps_per_epoch=4, batch_size=4, num_images=8)
    method = module.create(backbone, run, temperature=0.5)
    shape = (run.batch_size, *module.views(16)[0].shape)
    views = list(jax.random.normal(jax.random.key(0), (2, *shape)))
    index, label = jnp.zeros((4, 2), jnp.int32), jnp.zeros(4, jnp.int32)
    batch = methods.Batch(views, index, label, jnp.int32(0))
    lion = importlib.import_module(f"{package}.optimiser").lion
    tx = optim.by_rules(lion, module.RULES, lambda step: 0.01, weight_decay=1e-4)
    params, state = method.init(jax.random.key(1), views)

    @jax.jit
    def step(params, state, moments):
        (value, output), gradient = jax.value_and_grad(method.loss, has_aux=True)(
            params, state, batch, jax.random.key(2)
        )
        updates, moments = tx.update(gradient, moments, params)
        return value, optax.apply_updates(params, updates), output.state, moments

    values, moments = [], tx.init(params)
    for _ in range(5):
        value, params, state, moments = step(params, state, moments)
        values.append(float(value))
    assert values[-1] < values[0]
    assert method.backbone_variables(params, state)["params"]["conv"]


def test_loss(package):
    loss = importlib.import_module(f"{package}.loss").cosine_distance
    assert float(loss(jnp.eye(3), -jnp.eye(3))) == pytest.approx(2.0)


def test_logger(package, tmp_path):
    config, record = {"method": "simclr"}, [(0, {"loss": 2.0})]
    (logger,) = loggers.start([f"{package}.logger"], tmp_path, config, record)
    logger.write_scalars(4, {"loss": 1.5, "epoch": 0.5})
    logger.close()
    rows = (tmp_path / "simclr.csv").read_text().splitlines()
    assert rows == ["0,loss,2.0", "4,loss,1.5", "4,epoch,0.5"]


def test_the_method_of_ten_minutes_trains(tmp_path, monkeypatch):
    text = (ROOT / "CONTRIBUTING.md").read_text()
    method, recipe = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "align.py").write_text(method)
    (tmp_path / "recipe.py").write_text(recipe)
    monkeypatch.syspath_prepend(tmp_path)
    config = load_config(str(tmp_path / "recipe.py"))
    validate.check_training(config.to_dict())
    _, metrics = recipe_steps.train(config, steps=1, steps_per_epoch=1)
    assert metrics[0].keys() > {"loss", "spread"}
    assert metrics[0]["loss"] > metrics[0]["spread"]
