"""A user's own evaluator, in a folder outside the repository, by its import path."""

import json
import math
import os
import pathlib
import re
import subprocess
import sys

import pytest

import eval as evals
from eval import report, suite
from eval.compare import tables
from eval.study import plan
from eval.study.checks import check_study
from sp_jax import main
from sp_jax.errors import UserError
from tests.eval.study.test_plan import tiny as tiny_study
from tests.train import tiny

ROOT = pathlib.Path(__file__).parents[2]
# The example of the documentation.
MODULE = next(
    block
    for block in re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/evaluation.md").read_text(), re.DOTALL
    )
    if "class Options" in block
)
SPLITS = {"train_split": "probe_train", "test_split": "probe_test"}
OPTIONS = {"dataset": "emoji", "target": "category", **SPLITS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A package `mine` with an evaluator, and a module that is none."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "mine").mkdir()
    (folder / "mine/nearest_mean.py").write_text(MODULE)
    (folder / "mine/nothing.py").write_text("import dataclasses\n\nOptions = dict\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """A run that was trained with it."""
    config = tiny.get_config()
    config.epochs = 0.03  # 7 steps
    config.evals = {"mean": {"type": "mine.nearest_mean", **OPTIONS}}
    workdir = tmp_path_factory.mktemp("runs") / "one"
    main.run(config, workdir)
    return workdir


def test_a_run_and_its_report(run):
    read = report.read_folder(run)
    comparison = report.compare([read])
    number = next(row.number for row in comparison.rows if row.name == "mean")
    assert (number.name, number.better, number.percent) == ("hits", "higher", True)
    assert 0 < number.chance < 1
    row = next(row for row in tables.make_table(comparison) if row[0] == "mean")
    assert row[1] == "hits" and all(0 < float(cell) < 1 for cell in row[2:])
    # It is measured at the end: the floor, which is measured before, is no curve.
    assert [line["step"] for line in read.lines if "mean/hits" in line] == [7]
    own, floor = (one for one in read.results if one.name == "mean")
    assert own.content["evaluator"] == "mine.nearest_mean" and not own.untrained
    assert floor.untrained and floor.content["step"] == 0
    assert floor.content["options"]["power"] == 2.0


def test_the_suite(run, tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "draw", lambda *args: [])
    kinds = ["knn", "mine.nearest_mean"]
    ((dataset, table, _),) = suite.run([str(run)], ["emoji"], kinds, tmp_path)
    assert dataset == "emoji"
    assert ["mine_nearest_mean_emoji_category", "hits"] in [x[:2] for x in table]
    assert "nearest mean, emoji category" in (tmp_path / "suite.html").read_text()
    with pytest.raises(UserError, match="evaluator 'mine.no'"):
        suite.run([str(run)], ["emoji"], ["mine.no"], tmp_path)


def test_its_own_command_and_a_study(run, folder):
    flags = [f"--{name}={value}" for name, value in OPTIONS.items()]
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "mine.nearest_mean",
                "--power=1",
                "--dataset=emoji",
            ),
            *(f"--checkpoint={run}", "--target=category", "--name=alone", *flags),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    written = json.loads((run / "eval/alone.json").read_text())
    assert math.isfinite(written["result"]["hits"])
    assert [number["name"] for number in written["headline"]] == ["hits"]
    study = tiny_study()
    study.evaluations = {"mean": {"type": "mine.nearest_mean", **OPTIONS}}
    study.measures = {"mean": {"of": "mean/hits", "percent": True}}
    study.claims, study.paper, study.stores = {}, {}, {}
    read = plan.read_study(study)
    jobs = plan.make_jobs(read)
    assert jobs[0].commands[-1].words[0] == "mine.nearest_mean"
    protocols = check_study(read, jobs, run.parent)
    assert protocols["mean"].startswith("nearest mean, emoji category")


def test_what_is_no_evaluator(folder):
    with pytest.raises(
        UserError, match="mine.nothing is no evaluator: it has no create"
    ):
        evals.get("mine.nothing")
    for name, said in (
        ("mine.no", "Python finds no mine.no"),
        ("yours.nearest_mean", "Python finds no yours"),
        ("knnn", "choose one of.*knn"),
    ):
        with pytest.raises(UserError, match=f"{name}.*{said}"):
            evals.get(name)
