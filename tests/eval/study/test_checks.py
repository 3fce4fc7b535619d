"""A mistake in any recipe of a study is one sentence before anything runs."""

import json
import subprocess
import sys

import pytest

from configs.studies import common
from eval.study import checks, plan
from eval.training import open_training
from sp_jax.errors import UserError
from tests.eval.study.test_plan import tiny

DETECTION = "configs/eval/scenes_faster_rcnn_c4.py"


def mistakes():
    """Name -> a change of `tiny`, and what the error says."""

    def to(path, value):
        def change(study):
            *parents, last = path.split(".")
            for name in parents:
                study = study[name]
            study[last] = value

        return change

    def of_sp(**changes):
        return to("arms.SP.changes", changes)

    kind = {"type": "detection", "config": DETECTION}
    table = {"pairs": "{folder}/table.csv"}
    return {
        "key": (to("sedes", (1,)), "sedes"),
        "key of an arm": (
            to("arms.SP.epochs", 3.0),
            "no key 'epochs', .*arms.SP.changes.epochs",
        ),
        "key of a claim": (to("claims.better.lower", 1.0), "claims.better.*'lower'"),
        "key of a measure": (to("measures.probe.percents", 1), "'percents'"),
        "key of the figure": (to("figure.kinds", "bars"), "figure.*'kinds'"),
        "no type": (to("evaluations.x", {"k": 1}), "evaluations.x has no type"),
        "unused store": (to("stores.pretrain", "emoji"), "pretrain is not used"),
        "store's name": (to("stores.seed", "emoji"), "{seed} has a meaning"),
        "brace": (to("evaluations.probe_images.dataset", "a{"), "'a{': .*brace"),
        "seeds": (to("seeds", (1, 1)), "twice"),
        "store": (to("changes.data", {"store": "{where}"}), "{where}"),
        "claim": (to("claims.better.terms", {"SP": 1.0, "XP": -1.0}), "XP"),
        "measure": (to("claims.better.measure", "STL"), "STL"),
        "paper": (to("paper", {"SP": {"STL": 1.0}}), "STL"),
        "figure": (to("figure.kind", "pie"), "bars, lines"),
        "factor": (to("figure.x", "method"), "method"),
        "after": (to("arms.SP.after", "XP"), "XP"),
        "circle": (to("arms.SP.after", "SP"), "wait for one another"),
        "file": (to("arms.SP.config", "configs/nothing.py"), "nothing.py"),
        "variant": (to("arms.SP.config", "configs/quickstart.py:x"), "arms.SP"),
        "change": (of_sp(epoch=3), "arms.SP: There is no config.epoch"),
        "split": (of_sp(data={"split": "x"}), "arms.SP: .* no split 'x'"),
        "pairs": (of_sp(data={"pairs": "x.csv"}), "x.csv"),
        "no preparation": (of_sp(data=table), "no command makes it"),
        "option": (to("evaluations.probe_images.seed", "x"), "probe_images: seed"),
        "run": (to("measures.fast", common.measure("run/fast")), "minutes"),
        "result": (to("measures.x", common.measure("top/accuracy")), "not every run"),
        # What used to show when the run of this arm began.
        "warm-up": (of_sp(optimizer={"warmup_epochs": 9.0}), "arms.SP: .*warm"),
        "batch": (of_sp(batch_size=100_000), "arms.SP: batch_size 100000 exceeds"),
        "devices": (of_sp(batch_size=127), "127, which 2 devices cannot share"),
        "method": (of_sp(method_options={"heat": 1.0}), "arms.SP: .*heat"),
        "own evaluation": (
            of_sp(evals={"retrieval": {"splits": ("x",)}}),
            "arms.SP: config.evals.retrieval: .* 'x'",
        ),
        "detection": (
            to("evaluations.x", {**kind, "steps": 2}),
            "evaluations.x: .*steps",
        ),
    }


@pytest.mark.parametrize("name", mistakes())
def test_mistakes_are_words(name, tmp_path):
    change, words = mistakes()[name]
    study = tiny()
    change(study)
    with pytest.raises(UserError, match=words):
        read = plan.read_study(study)
        checks.check_study(read, plan.make_jobs(read), tmp_path, devices=2)


def test_a_run_that_is_there_is_of_the_recipe(tmp_path):
    study = plan.read_study(tiny())
    jobs = plan.make_jobs(study)
    job = jobs[-1]
    opened, saved = {}, tmp_path / job.folder / "config.json"
    for name in ("SP", "AP"):
        config = plan.config_of(study, study["arms"][name])
        opened[name] = open_training(config, tmp_path, 1)

    def check():
        checks.check_made(study, jobs[1::2], tmp_path, opened[job.arm])

    config = plan.config_of(study, study["arms"][job.arm])
    config.seed = job.seed
    saved.parent.mkdir(parents=True)
    saved.write_text(json.dumps(config.to_dict()))
    check()
    meta = saved.parent / "checkpoints/9/meta/metadata"
    meta.parent.mkdir(parents=True)
    pairs = opened[job.arm].pairs.table.info()
    meta.write_text(json.dumps({"config": config.to_dict(), "pairs": pairs}))
    check()
    meta.write_text(json.dumps({"config": {}, "pairs": pairs | {"store": "0a"}}))
    with pytest.raises(UserError, match="images changed since the run in .*seed2"):
        check()
    config.optimizer.learning_rate = 0.1
    saved.write_text(json.dumps(config.to_dict()))
    with pytest.raises(UserError, match="seed2 holds a run with .*learning_rate = 0.1"):
        check()


def test_a_run_may_start_from_that_of_another_arm(tmp_path):
    study = tiny()
    study.arms.SP.update(after="AP", changes={"init": "{after}"})
    read = plan.read_study(study)
    checks.check_study(read, plan.make_jobs(read), tmp_path)


def test_a_table_that_a_program_writes_is_known_before_it_runs(tmp_path):
    (pairs,) = (common.pairs_of_class("quick", 1),)
    study = tiny()
    for arm in study.arms.values():
        arm.prepare = (pairs,)
        arm.changes.data.pairs = "{folder}/table.csv"
    study = plan.read_study(study)
    jobs = plan.make_jobs(study)
    assert checks.check_study(study, jobs, tmp_path).keys() == {"probe_images"}
    assert not any(tmp_path.iterdir())
    study["changes"]["batch_size"] = 2048  # of the drawings' two thousand pairs
    with pytest.raises(
        UserError, match=r"arms.SP: batch_size 2048 exceeds the \d+ pairs"
    ):
        checks.check_study(study, plan.make_jobs(study), tmp_path)


def test_a_preparation_that_fails_says_why(tmp_path):
    words = ("input_pipeline.build_pairs", "--store=nowhere", "--out={folder}/x.csv")
    with pytest.raises(UserError, match="input_pipeline.build_pairs: .*nowhere"):
        checks._prepare(tmp_path, (words,), 0)


def test_a_mistake_is_code_2_also_where_nothing_is_made(tmp_path):
    words = ("--study=configs/studies/vit.py:quick", f"--workdir={tmp_path}")
    words += ("--launcher=show", "--study.changes.optimizer.warmup_epochs=99.0")
    command = [sys.executable, "-m", "eval.study", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: study.arms.SP: ") and "warm" in done.stderr
    assert not any(tmp_path.iterdir())
