"""Every study expands, and its mistakes are words before anything runs."""

import importlib
import pathlib

import pytest

from configs.studies import common
from eval import linear_probe, results
from eval.study import images, plan
from sp_jax.errors import UserError

ROOT = pathlib.Path(__file__).parents[3]
NAMES = sorted(
    path.stem
    for path in (ROOT / "configs/studies").glob("*.py")
    if path.stem not in ("__init__", "common", "own")  # test_own
)
# Runs of all seeds, and commands of a run beside its training.
SIZES = {
    "augmentation": (30, 3),
    "detection": (9, 1),
    "epochs": (18, 3),
    "invariance": (6, 1),
    "pair_sources": (27, 4),
    "pairs_per_image": (12, 3),
    "samples": (18, 4),
    "tiny_imagenet": (6, 3),
    "transfer": (66, 3),
    "vit": (6, 3),
}


def study_of(name, variant=""):
    return importlib.import_module(f"configs.studies.{name}").get_config(variant)


def tiny():
    """Two arms of the quickstart and a probe."""
    study = common.get_study()
    study.stores.images = "emoji"
    common.add_probe(study, "images", "probe")
    splits = {"train_split": "probe_train", "test_split": "probe_test"}
    study.evaluations.probe_images.update(splits | {"target": "category"})
    for pairs in common.PAIRS:
        study.arms[pairs] = common.arm(
            "configs/simclr_resnet50.py:quick", {"pairs": pairs}, common.pairing(pairs)
        )
    study.claims.better = common.claim("Better.", "probe", {"SP": 1.0, "AP": -1.0})
    study.figure = {"kind": "bars", "x": "pairs"}
    return study


@pytest.mark.parametrize("variant", common.VARIANTS)
@pytest.mark.parametrize("name", NAMES)
def test_every_study_expands(name, variant, monkeypatch):
    study = study_of(name, variant)
    if "pairs" in study.stores and study.stores.pairs:
        study.stores.pairs = __file__  # a file that there is
    study = plan.read_study(study)
    jobs = plan.make_jobs(study)
    if not variant:
        assert (len(jobs), max(len(job.commands) for job in jobs) - 1) == SIZES[name]
    assert len({job.folder for job in jobs}) == len(jobs)
    folders = [job.folder for job in jobs]
    for number, job in enumerate(jobs):
        assert not job.after or job.after in folders[:number]
    # The stores are not here; everything else is checked.
    monkeypatch.setattr(
        plan, "find_splits", lambda *args, **kwargs: ("train", "pretrain")
    )
    protocols = dict.fromkeys(study["evaluations"], "")
    if variant == "quick":
        assert plan.check(study).keys() == protocols.keys()
    else:
        study["evaluations"] = {}
        study["measures"] = {
            title: one
            for title, one in study["measures"].items()
            if one["of"].startswith("run/")
        }
        plan.check(study)


def test_all_are_in_the_docs():
    text = (ROOT / "docs/studies.md").read_text()
    assert sorted(SIZES) == NAMES
    for name in NAMES:
        assert f"`{name}`" in text


def test_commands_are_those_one_would_type():
    study = tiny()
    study.seeds = (7,)
    study.changes.epochs = 2.0
    study.changes.augment = {"crop_scale": (0.2, 1.0)}
    (_, ap) = plan.make_jobs(plan.read_study(study))
    train, probe = ap.commands
    assert train.words == (
        "sp_jax.main",
        "--config=configs/simclr_resnet50.py:quick",
        "--config.seed=7",
        "--config.augment.crop_scale=(0.2, 1.0)",
        "--config.epochs=2.0",
        "--config.data.pairing=augmented",
        "--workdir={folder}",
    )
    assert probe.words[:2] == ("eval.linear_probe", "--checkpoint={folder}")
    assert {"--name=probe_images", "--dataset=emoji"} <= set(probe.words)
    pool = pathlib.Path("/runs")
    assert ap.words(train, pool)[-1] == f"--workdir=/runs/{ap.folder}"


def test_evaluations_know_the_images_that_they_read():
    study = tiny()
    study.seeds = (0,)
    study.arms.AP.changes.data.image_size = 32
    study.changes.epochs = 1.0
    study = plan.read_study(study)
    sp, ap = images.add_images(study, plan.make_jobs(study))
    assert sp.commands[0].images is None  # of the training
    found = [job.commands[1].images for job in (sp, ap)]
    assert list(found[0]) == ["emoji probe_train", "emoji probe_test"]
    assert found[0] != found[1]  # other pixels
    options = dict(study["evaluations"]["probe_images"], image_size=32)
    del options["type"]
    assert found[1] == linear_probe.create(**options).fingerprints()


def test_a_result_of_the_training_on_other_images_is_said(tmp_path):
    study = tiny()
    study.seeds = (0,)
    study.changes.epochs = 1.0
    study.measures.nearest = common.measure("retrieval/top1")
    study.arms.SP.config = "configs/quickstart.py"
    del study.arms.AP, study.claims.better
    study = plan.read_study(study)
    (job,) = jobs = plan.make_jobs(study)
    config = images.config_of(study, study["arms"][job.arm])
    own = images._read_by(config, config.evals.retrieval.to_dict())
    about = {"protocol": "", "headline": (), "step": 1, "weights": None}

    def write(images):
        results.write_result(
            tmp_path / job.folder, "retrieval", {}, images=images, **about
        )

    write(own)
    assert not images.find_outdated(study, jobs, tmp_path)
    write(own | {"emoji probe_test": "0a"})
    (said,) = images.find_outdated(study, jobs, tmp_path)
    assert f"{job.folder}/eval/retrieval.json is not of the images" in said


def test_a_run_has_one_folder_in_all_studies():
    def folders(study):
        return {job.arm: job.folder for job in plan.make_jobs(plan.read_study(study))}

    one, other = tiny(), tiny()
    other.evaluations = {}
    other.measures = {"minutes": common.measure("run/minutes")}
    other.claims = {}
    assert folders(one) == folders(other)
    other.changes.epochs = 3.0
    assert not set(folders(one).values()) & set(folders(other).values())
    # A run that builds on another is another one if that one is.
    for study in (one, other):
        study.arms.SP.after = "AP"
        study.changes.epochs = 2.0
    other.arms.AP.changes.batch_size = 64
    assert folders(one)["SP"] != folders(other)["SP"]


def mistakes():
    """Name -> a change of `tiny`, and what the error says."""

    def to(path, value):
        def change(study):
            *parents, last = path.split(".")
            for name in parents:
                study = study[name]
            study[last] = value

        return change

    return {
        "key": (to("sedes", (1,)), "sedes"),
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
        "change": (to("arms.SP.changes", {"epoch": 3}), "config.epoch"),
        "split": (to("arms.SP.changes", {"data": {"split": "x"}}), "no split 'x'"),
        "pairs": (to("arms.SP.changes", {"data": {"pairs": "x.csv"}}), "no table"),
        "option": (to("evaluations.probe_images.seed", "x"), "probe_images: seed"),
        "run": (to("measures.fast", common.measure("run/fast")), "minutes"),
        "result": (to("measures.x", common.measure("top/accuracy")), "not every run"),
    }


@pytest.mark.parametrize("name", mistakes())
def test_mistakes_are_words(name):
    change, words = mistakes()[name]
    study = tiny()
    change(study)
    with pytest.raises(UserError, match=words):
        read = plan.read_study(study)
        plan.make_jobs(read)
        plan.check(read)
