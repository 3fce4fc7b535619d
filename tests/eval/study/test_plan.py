"""Every study expands, and its mistakes are reported before anything runs."""

import importlib
import pathlib

import numpy as np
import pytest

from configs.studies import common, samples
from eval import linear_probe, results
from eval.study import checks, images, plan, untrained
from input_pipeline.pairs import PairTable
from input_pipeline.pairs.sampling import Sampler
from sp_jax import validate
from sp_jax.errors import UserError
from sp_jax.methods import RunSize, simclr
from sp_jax.recipe import make_recipe

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
    "pair_sources": (30, 4),
    "bootstrap": (15, 4),
    "pairs_per_image": (12, 3),
    "samples": (27, 4),
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

    # The stores are not here (and the quick runs are made elsewhere): the recipes are made for
    # a length that nearly any images have.
    def make(config, *args):
        size, steps = config.batch_size, 50
        validate.check_training(config.to_dict())
        total = max(1, round(config.epochs * steps))
        make_recipe(config.to_dict(), RunSize(total, steps, size, size * steps))

    monkeypatch.setattr(checks, "_find_table", lambda *args: "")
    monkeypatch.setattr(checks, "open_training", make)
    monkeypatch.setattr(checks, "check_made", lambda *args: None)
    protocols = dict.fromkeys(study["evaluations"], "")
    if variant == "quick":
        found = checks.check_study(study, jobs, pathlib.Path("none"))
        assert found.keys() == protocols.keys()
    else:
        study["evaluations"] = {}
        study["measures"] = {
            title: one
            for title, one in study["measures"].items()
            if one["of"].startswith("run/")
        }
        checks.check_study(study, jobs, pathlib.Path("none"))


@pytest.mark.parametrize("variant", common.VARIANTS)
def test_both_matches_of_ap_have_the_steps_of_sp(variant):
    """The whole run and its warm-up, however many batches the pairs do not fill."""
    study = plan.read_study(study_of("samples", variant))
    classes = 824 if variant == "quick" else 187
    for count in samples.COUNTS[variant]:
        rows, lengths = np.arange(classes * count), set()
        table = PairTable(rows, rows + len(rows), rows, "x", "all", "f", "test")
        for pairs in ("SP", "AP", "AP_both"):
            config = plan.config_of(study, study["arms"][f"{pairs}_{count}"])
            size, pairing = config.batch_size, config.data.pairing
            per_epoch = Sampler(table, size, 0, pairing).steps_per_epoch
            warmup = config.optimizer.warmup_epochs
            if warmup is None:
                warmup = simclr.OPTIMIZER["warmup_epochs"]
            lengths.add((config.epochs * per_epoch, warmup * per_epoch))
        ((total, warmup),) = lengths
        assert total == round(total) > warmup == round(warmup) > 0


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


def test_each_network_and_seed_has_a_floor(tmp_path):
    study = tiny()
    study.seeds = (7, 8)
    read = plan.read_study(study)
    runs = plan.make_jobs(read)
    jobs = untrained.add_floors(read, runs, tmp_path)
    assert jobs[:4] == runs
    titles = [job.title for job in jobs[4:]]
    assert titles == ["untrained, seed 7", "untrained, seed 8"]
    floor = jobs[4]
    assert floor.after == jobs[0].folder and floor.folder not in {
        x.folder for x in runs
    }
    (probe,) = floor.commands
    assert probe.words[:2] == ("eval.linear_probe", "--checkpoint={after}")
    assert "--untrained" in probe.words
    assert probe.words[3:] == runs[0].commands[1].words[2:]  # measured in the same way
    # Another network is another floor.
    study.arms.AP.changes.model = {"width": 8}
    read = plan.read_study(study)
    jobs = untrained.add_floors(read, plan.make_jobs(read), tmp_path)
    assert [job.label for job in jobs[4:6]] == ["untrained as SP", "untrained as AP"]
    # An arm of this name is the floor.
    study.arms.untrained = study.arms.AP
    read = plan.read_study(study)
    assert untrained.add_floors(read, runs, tmp_path) == runs


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


def test_ready_weights_are_evaluated_at_their_size(monkeypatch, tmp_path):
    monkeypatch.setattr(images, "_prepared_for", lambda file: {"image_size": 48})
    study = tiny()
    del study.arms.AP, study.claims.better
    study.arms.SP = common.arm("", {"pairs": "ready"}, checkpoint="net.pth")
    study = plan.read_study(study)
    jobs = plan.make_jobs(study)
    assert checks.check_study(study, jobs, tmp_path).keys() == {"probe_images"}
    (job,) = images.add_images(study, jobs)
    options = dict(study["evaluations"]["probe_images"], image_size=48)
    del options["type"]
    probe = linear_probe.create(**options)
    assert job.commands[0].images == probe.fingerprints()


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
    own = images._read_by({}, plan.evaluation_of(config, "retrieval"))
    about = {"protocol": "", "headline": (), "step": 1, "weights": None}

    def write(images):
        results.write_result(
            tmp_path / job.folder, "retrieval", {}, images=images, **about
        )

    write(own)
    assert not images.find_outdated(study, jobs, tmp_path)
    write(own | {"emoji probe_test": "0a"})
    (said,) = images.find_outdated(study, jobs, tmp_path)
    assert f"{job.folder}/eval/retrieval.json was measured on other images" in said


def test_a_run_has_one_folder_in_all_studies():
    def folders(study):
        return {job.arm: job.folder for job in plan.make_jobs(plan.read_study(study))}

    one, other = tiny(), tiny()
    other.evaluations, other.stores = {}, {}
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


@pytest.mark.parametrize("mistake", ["braces", "twice"])
def test_mistakes_that_would_show_late(mistake):
    study = tiny()
    changes = common.pairing("SP")
    study.arms.SP = common.arm("configs/quickstart.py", {"pairs": 7}, changes)
    assert plan.read_study(study)["arms"]["SP"]["factors"] == {"pairs": "7"}
    if mistake == "braces":
        study.stores.images = "folder:/data/my{old}images"
    else:
        study.arms.SP.prepare = (("a.build_pairs",), ("b.build_pairs",))
    with pytest.raises(
        UserError, match="braces" if mistake == "braces" else "called b"
    ):
        plan.read_study(study)
