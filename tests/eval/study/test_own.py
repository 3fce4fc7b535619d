"""A study of a user's own images: what they allow, and what fits into the hours."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from configs.studies import own
from eval.study import budget, images, numbers, own_images, plan
from eval.study.checks import check_study
from input_pipeline.pairs import load_table
from input_pipeline.stores import open_store
from sp_jax.errors import UserError

ROOT = pathlib.Path(__file__).parents[3]
COUNT = 30  # images of each class


def _write(folder, seed=0, count=COUNT):
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Name -> store: labelled, bare (no labels), other (a test of one's own), split."""
    root = tmp_path_factory.mktemp("images")
    for name in ("cat", "dog", "fox"):
        _write(root / "labelled" / name, seed=len(os.listdir(root)))
    _write(root / "bare", 7, 120)
    for name in ("oak", "elm"):
        _write(root / "other" / name, ord(name[0]))
        for split in ("train", "test"):
            _write(root / "split" / split / name, ord(name[0]) + len(split))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SP_JAX_DATA", str(tmp_path_factory.mktemp("data")))
        names = ("labelled", "bare", "other", "split")
        yield {name: f"folder:{root / name}" for name in names}


def _asked(**given):
    return own.get_config().to_dict() | given


def test_a_tenth_of_each_class_is_the_test(stores, tmp_path):
    found = own_images.look(_asked(images=stores["labelled"]), tmp_path)
    assert (found.split, found.fit_split) == ("all:rest", "all:rest")
    assert (found.test, found.test_split) == (stores["labelled"], "all:holdout")
    assert found.pairs == found.shown == 81 and not found.mined


@pytest.mark.parametrize(
    "test, splits",
    [("split", ("train", "test")), ("other", ("all:rest=0.5", "all:holdout=0.5"))],
)
def test_another_set_is_the_test(stores, tmp_path, test, splits):
    asked = _asked(images=stores["labelled"], test=stores[test])
    found = own_images.look(asked, tmp_path)
    assert (found.split, found.pairs) == ("all", 90)
    assert (found.fit_split, found.test_split) == splits


def test_splits_of_the_images_are_used(stores, tmp_path):
    found = own_images.look(_asked(images=stores["split"]), tmp_path)
    assert (found.split, found.fit_split, found.test_split) == (
        "train",
        "train",
        "test",
    )


def test_large_tests_are_cut(stores, tmp_path, monkeypatch):
    monkeypatch.setattr(own_images, "TEST", 20)
    found = own_images.look(
        _asked(images=stores["bare"], test=stores["split"]), tmp_path
    )
    held = open_store(stores["split"], found.test_split)
    assert np.bincount(held.labels).tolist() == [10, 10]
    assert found.fit_split == "train"


def test_a_table_loses_the_pairs_that_are_held_out(stores, tmp_path):
    part = open_store(stores["labelled"], "all:rest")
    held = open_store(stores["labelled"], "all:holdout")
    good = [f"{a},{b}," for a, b in zip(part.ids[:40], part.ids[1:], strict=False)]
    bad = [f"{part.ids[0]},{held.ids[0]},", f"{held.ids[1]},{held.ids[1]},"]
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(["first,second,label", *bad, *good]))
    found = own_images.look(
        _asked(images=stores["labelled"], pairs=str(path)), tmp_path
    )
    assert found.pairs == 40
    table = load_table(found.table, part)
    assert [part.ids[row] for row in table.first] == list(part.ids[:40])
    # With a test of its own, no image is held out.
    whole = _asked(images=stores["labelled"], test=stores["other"], pairs=str(path))
    assert own_images.look(whole, tmp_path).pairs == 42


@pytest.mark.parametrize(
    "given, said",
    [
        ({}, "--study.images=folder:PHOTOS"),
        ({"images": "bare"}, "--study.test=folder:OTHER"),
        ({"images": "labelled", "baseline": "/no/file"}, "no file of weights"),
    ],
)
def test_what_cannot_be_is_a_sentence(stores, tmp_path, given, said):
    given = {name: stores.get(value, value) for name, value in given.items()}
    with pytest.raises(UserError, match=said):
        own_images.look(_asked(**given), tmp_path)


def test_copies_of_test_images_are_said(stores, tmp_path):
    found = own_images.look(
        _asked(images=stores["other"], test=stores["other"]), tmp_path
    )
    assert "30 of the test images are also training images." in found.sentences


@pytest.mark.parametrize("images_of", ["labelled", "bare"])
def test_all_arms_make_the_same_steps(stores, tmp_path, images_of, monkeypatch):
    monkeypatch.setattr(images, "_prepared_for", lambda file: {"image_size": 224})
    asked = _asked(images=stores[images_of], test=stores["other"], baseline=__file__)
    found = own_images.look(asked, tmp_path)
    study = plan.read_study(own.make_study(asked, found, own.SIZES[0], 77))
    check_study(study, plan.make_jobs(study), tmp_path)
    assert found.mined == (images_of == "bare")
    for name, arm in study["arms"].items():
        if name == "baseline":
            continue
        config = plan.config_of(study, arm)
        pairs = found.shown if config.data.pairing == "augmented" else found.pairs
        assert round(config.epochs * (pairs // config.batch_size)) == 77
        assert bool(arm["after"]) == (found.mined and name.startswith("SP"))
    jobs = images.add_images(study, plan.make_jobs(study))
    *trained, ready = jobs
    assert len(trained) == 12 and ready.title == "baseline"
    words = ready.words(ready.commands[0], tmp_path)
    assert f"--checkpoint={__file__}" in words
    assert f"--workdir={tmp_path / ready.folder}" in words
    assert ready.commands[0].images == trained[0].commands[-3].images


def test_ready_weights_are_compared_with_every_seed():
    claim = {
        "measure": "x",
        "terms": {"a": 1.0, "b": -1.0},
        "above": 0.0,
        "below": None,
    }
    values = {"x": {"a": {0: 3.0, 1: 4.0}, "b": {None: 1.0}}}
    verdict = numbers.judge(claim, values)
    assert (verdict.sum.seeds, verdict.sum.mean, verdict.agree) == (2, 2.5, 2)


def test_runs_are_laid_beside_each_other():
    def job(arm, after=""):
        return plan.Job(arm, 0, f"{arm}/0", after and f"{after}/0", ())

    costs = {"a": budget.Cost(5, 1), "b": budget.Cost(1, 1), "c": budget.Cost(0, 2)}
    jobs = [job("a"), job("b"), job("c", after="a")]
    assert budget.end_of(jobs, costs, 10, slots=1) == 15 + 11 + 20
    assert budget.end_of(jobs, costs, 10, slots=2) == 15 + 20


@pytest.fixture
def measured(monkeypatch):
    """Steps that take these seconds, by size; the sizes that were measured."""
    calls = []

    def measure(asked, found, size, pool, devices):
        calls.append(size.name)
        step = 0.1 * 4 ** own.SIZES.index(size)
        arms = own.make_study(asked, found, size, 100).arms
        costs = {arm: budget.Cost(30.0, step) for arm in arms}
        return costs | {"untrained": budget.Cost(30.0, 0.0)}

    monkeypatch.setattr(budget, "measure", measure)
    return calls


@pytest.mark.parametrize(
    "hours, size, tried", [(1.0, 0, 1), (8.0, 1, 2), (60.0, 2, 3), (2000.0, 3, 4)]
)
def test_the_largest_network_that_fits(stores, tmp_path, measured, hours, size, tried):
    config = own.get_config()
    config.update(images=stores["labelled"], hours=hours)
    study, said = budget.plan_study(config, tmp_path, tmp_path / "runs", [{}, {}])
    assert own.SIZES[size].config == study.arms[own.BEST_SP].config
    assert own.SIZES[size].width == study.changes.model.width
    assert len(measured) == tried
    kept = json.loads((tmp_path / budget.PLAN).read_text())
    assert kept["steps"] >= own.SIZES[size].least
    costs = {arm: budget.Cost(*cost) for arm, cost in kept["costs"].items()}
    jobs = budget.jobs_of(study, tmp_path / "runs")
    seconds = budget.end_of(jobs, costs, kept["steps"], 2)
    assert 0.94 * hours * 3600 < seconds < hours * 3600
    assert f"in {seconds / 3600:.2f} hours" in said


def test_too_few_hours(stores, tmp_path, measured):
    config = own.get_config()
    config.update(images=stores["labelled"], hours=0.01)
    with pytest.raises(UserError, match=r"need (\S+) hours here") as error:
        budget.plan_study(config, tmp_path, tmp_path / "runs", [{}, {}])
    config.hours = float(str(error.value).split()[-3]) + 0.001
    budget.plan_study(config, tmp_path, tmp_path / "runs", [{}, {}])


def test_a_plan_is_kept(stores, tmp_path, measured):
    def make(devices=2, **more):
        config = own.get_config()
        config.update(images=stores["labelled"], hours=1.0, **more)
        return budget.plan_study(config, tmp_path, tmp_path / "runs", [{}] * devices)

    (first, _), (second, said) = make(), make()
    assert first == second and len(measured) == 1 and "another machine" not in said
    assert "another machine" in make(devices=3)[1]
    with pytest.raises(UserError, match=r"with seeds=\[0, 1, 2\], not \[0\]"):
        make(seeds=(0,))


@pytest.mark.slow
def test_from_a_folder_to_the_page(stores, tmp_path):
    words = ("--study=configs/studies/own.py", f"--workdir={tmp_path}", "--jobs=2")
    words += (f"--study.images={stores['labelled']}", "--study.seeds=(0,)")
    words += ("--study.hours=1",)
    # Far fewer steps than an hour has.
    start = (
        "import runpy; from configs.studies import own; from eval.study import budget\n"
    )
    start += "budget._most, budget.TRIAL = lambda *_: 8, {'core': 6}\n"
    start += "own.SIZES = (own.SIZES[0]._replace(least=8),)\n"
    start += "runpy.run_module('eval.study', run_name='__main__', alter_sys=True)"
    result = subprocess.run(
        [sys.executable, "-c", start, *words],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (page,) = tmp_path.glob("own_*/study.html")  # its name is of what was asked
    text = page.read_text()
    assert "4 of 4 runs are complete" in text and "<td>untrained</td>" in text
    assert (page.parent / "invariance.png").is_file()


def test_options_and_pairs_that_do_not_fit(stores, tmp_path, measured):
    config = own.get_config()
    for wrong in ({"hours": 0.0}, {"seeds": ()}, {"seeds": (1, 1)}):
        changed = config.copy_and_resolve_references()
        changed.update(wrong)
        with pytest.raises(UserError, match="--study"):
            budget.check(changed)
    budget.check(config)
    config.update(images=stores["labelled"], hours=1.0)
    plan_it = functools.partial(budget.plan_study, config, tmp_path, tmp_path / "runs")
    plan_it([{}, {}])
    path = tmp_path / budget.PLAN
    kept = json.loads(path.read_text())
    path.write_text(json.dumps(kept | {"pairs": "others"}))
    with pytest.raises(UserError, match="The pairs changed since"):
        plan_it([{}, {}])
    del kept["costs"][own.BEST_SP]  # as before this arm was in the study
    path.write_text(json.dumps(kept))
    with pytest.raises(UserError, match="not a plan of this version"):
        plan_it([{}, {}])
