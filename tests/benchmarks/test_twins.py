"""`benchmarks.twins` trains the same twice, and separates differences that seeds explain."""

import argparse
import csv
import json
import pathlib

import jax
import numpy as np
import optax
import pytest
from scipy import stats

from benchmarks import peers, twins
from benchmarks.twins_recipes import METHODS, get_config
from input_pipeline.stores import open_store
from sp_jax import weights
from sp_jax.methods import Batch, RunSize
from sp_jax.recipe import make_recipe
from tests.methods.build import noisy
from tests.torchvision_ref import torch

STEPS, LENGTH = 4, (8, 2)  # that are made; of the run, and of an epoch


@pytest.fixture(scope="module")
def drawings():
    return open_store("emoji")


def load_network(network, module, params, stats):
    """Ours into backbone and head of PyTorch."""
    backbone, head = network
    variables = {"params": params["backbone"], "batch_stats": stats["backbone"]}
    state = weights.to_torch(module, variables)
    backbone.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
    load_head(head, params["projector"])


@torch.no_grad()
def load_head(head, params):
    """Dense layers and normalisations, in their order; biases without effect stay."""
    number = -1
    for layer in head.layers:
        if isinstance(layer, torch.nn.Linear):
            number += 1
            own = params[f"dense{number}"]
            layer.weight.copy_(torch.tensor(np.array(own["kernel"]).T))
        elif f"bn{number}" in params and isinstance(layer, torch.nn.BatchNorm1d):
            own = params[f"bn{number}"]
            layer.weight.copy_(torch.tensor(np.array(own["scale"])))
        else:
            continue
        if "bias" in own and layer.bias is not None:
            layer.bias.copy_(torch.tensor(np.array(own["bias"])))
    assert f"dense{number + 1}" not in params
    if "last_layer" in params:
        kernel = np.array(params["last_layer"]["kernel"])
        head.last_layer.weight_v.copy_(torch.tensor(kernel.T))


def load_method(method, module, params, state):
    """All networks of a method."""
    networks = {"params": (params, state["batch_stats"])}
    names = ["params", *({"target", "teacher"} & state.keys())]
    networks |= {name: (state[name], state[f"{name}_stats"]) for name in names[1:]}
    theirs = {"params": getattr(method, "online", getattr(method, "student", None))}
    theirs |= {name: getattr(method, name) for name in names[1:]}
    for name, (own, running) in networks.items():
        network = theirs[name] or (method.evaluated, method.head)
        load_network(network, module, own, running)
    if "predictor" in params:
        load_head(method.predictor, params["predictor"])


@pytest.mark.parametrize("method", METHODS)
def test_same_training(method, drawings):
    """Equal weights and views: some steps give the same losses and the same backbone."""
    pytest.importorskip("lightly")
    twins_torch = pytest.importorskip("benchmarks.twins_torch")
    config = get_config(method)
    config.batch_size, config.model.width = 16, 4
    recipe = make_recipe(config.to_dict(), RunSize(*LENGTH, 16, 99))
    params, state = jax.jit(recipe.init)(jax.random.key(0))
    params = noisy(params, 0.05)
    if "teacher" in state:
        state = state | {"teacher": params}
    views = np.random.default_rng(0).normal(size=(2, 16, 32, 32, 3)).astype("float32")

    work = peers.make_work(config, drawings)
    length = twins_torch.Length(*LENGTH)
    twin = twins_torch.make_method(work, length)
    load_method(twin, recipe.backbone, params, state)
    train = twins_torch.make_step(twin, work, length)
    theirs = [torch.tensor(np.moveaxis(x, -1, 1).copy()) for x in views]
    expected = [train(theirs, number) for number in range(STEPS)]

    @jax.jit
    def step(params, state, opt_state, number):
        index, label = np.zeros((16, 2), np.int32), np.zeros(16, np.int32)
        batch = Batch(list(views), index, label, number)
        grad = jax.value_and_grad(recipe.method.loss, has_aux=True)
        (value, out), grads = grad(params, state, batch, jax.random.key(1))
        updates, opt_state = recipe.tx.update(grads, opt_state, params)
        params, state = optax.apply_updates(params, updates), out.state
        if recipe.method.update:
            params, state = recipe.method.update(params, state, number)
        return params, state, opt_state, value

    def backbone(params, state):
        variables = recipe.method.backbone_variables(params, state)
        return weights.to_torch(recipe.backbone, variables)

    start, opt_state, values = backbone(params, state), recipe.tx.init(params), []
    for number in range(STEPS):
        params, state, opt_state, value = step(params, state, opt_state, number)
        values.append(float(value))
    assert values == pytest.approx(expected, rel=2e-4)
    assert abs(values[-1] - values[0]) > 2e-3 * values[0]  # it did train
    ends = twin.evaluated.state_dict()
    moved = [
        (value - start[name], ends[name].numpy() - start[name])
        for name, value in backbone(params, state).items()
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    ]
    ours, same = (
        np.concatenate([x.ravel() for x in xs]) for xs in zip(*moved, strict=True)
    )
    # On noise PyTorch's VICReg in float32 is 2 % from itself in float64, the others 0.1 %.
    # Adam, of DINO, goes by the sign of a gradient, also of a tiny one.
    bound = {"vicreg": 0.04, "dino": 0.02}.get(method, 0.002)
    assert np.linalg.norm(ours - same) <= bound * np.linalg.norm(same)


def test_difference_of_samples():
    """Welch's interval, from its formula: variances 1 and 4, so 2.941176 degrees of freedom."""
    found = twins.compare([3.0, 4.0, 5.0], [1.0, 3.0, 5.0])
    half = stats.t.ppf(0.975, (5 / 3) ** 2 / ((1 / 9 + 16 / 9) / 2)) * (5 / 3) ** 0.5
    assert found[:3] == pytest.approx((1, 1 - half, 1 + half), rel=1e-5)
    assert found.verdict == "as far apart as seeds"
    far = twins.compare([3.0, 4.0, 5.0], [9.0, 9.1, 9.2])
    assert far.verdict == "further apart than seeds" and far.high < 0
    assert twins.compare([1.0], [2.0, 3.0]).verdict == "too few seeds"


def made_up(level):
    curve = [[0, level + 1], [10, level]]
    return {"loss": curve, "knn/accuracy_k20": [[10, 0.5]], "minutes": 1}


def test_goes_on_and_reports(tmp_path, monkeypatch, capsys):
    """What is finished is not made again, the rest in turns; table, CSV and figure."""
    made = []

    def run(words, stdout, stderr, check):
        made.append(words)
        folder = next(x for x in words if x.startswith("--workdir"))
        folder = pathlib.Path(folder.partition("=")[2])
        folder.mkdir()
        lines = [
            {"step": 0, "knn/accuracy_k20": 0.1},
            {"step": 10, "loss": 2.0 + len(made)},
        ]
        lines += [{"step": 10, "knn/accuracy_k20": 0.5 + 0.01 * len(made)}]
        text = "".join(json.dumps(line | {"time": 0.0}) + "\n" for line in lines)
        (folder / "metrics.jsonl").write_text(text)
        return argparse.Namespace(returncode=0)

    monkeypatch.setattr(twins.subprocess, "run", run)
    (tmp_path / "byol_sp_jax_0.json").write_text(json.dumps(made_up(3.0)))
    words = ["--methods=byol", "--seeds=2", "--store=folder:X", f"--out={tmp_path}"]
    twins.main(words)
    assert [words[2] for words in made] == [
        *("benchmarks.twins_torch", "sp_jax.main", "benchmarks.twins_torch")
    ]
    table = capsys.readouterr().out
    assert "| byol | final loss | 3.500 ± 0.707 | 4.000 ± 1.414 | -0.500 |" in table
    assert "| byol | kNN, % | 51.00 ± 1.41 | 52.00 ± 1.41 | -1.00 |" in table
    with open(tmp_path / "twins.csv") as file:
        rows = list(csv.DictReader(file))
    assert {(r["side"], r["seed"]) for r in rows} == {
        (side, seed) for side in twins.SIDES for seed in "01"
    }
    assert (tmp_path / "twins.png").stat().st_size > 10_000
    twins.main(words)
    assert len(made) == 3
