"""Each mistake of a user: one sentence, exit code 2, and nothing compiled before it."""

import dataclasses
import inspect
import io
import math
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import pytest
from PIL import Image

from configs import common
from configs.eval import voc_faster_rcnn_c4
from eval.training import open_training
from sp_jax import main, methods, models, validate
from sp_jax.config import flatten
from sp_jax.domains import DETECTION, LOOP, TRAINING, check_domains, find_domain
from sp_jax.errors import UserError
from sp_jax.models.resnet import ResNet
from sp_jax.train.workdir import claim_workdir
from tests.train import tiny

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path):
    """A folder of 2 classes with 3 images each."""
    for name in ("cat", "dog"):
        directory = tmp_path / "images" / name
        directory.mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (20, 20), (40 * i, 90, 10)).save(directory / f"{i}.png")
    return tmp_path / "images"


def change(config, path, value):
    *sections, key = path.split(".")
    for section in sections:
        config = config[section]
    with config.unlocked():
        config[key] = value


def pair_table(tmp_path, text):
    path = tmp_path / "pairs.csv"
    path.write_text(text)
    return str(path)


CASES = {
    "unknown key": (lambda p, f: ("learning_rat", 0.1), "no config.learning_rat;"),
    "unknown section key": (lambda p, f: ("data.stor", "x"), "no config.data.stor;"),
    "unknown method": (lambda p, f: ("method", "simclrr"), "no method 'simclrr'"),
    "unknown method option": (
        lambda p, f: ("method_options.temprature", 0.1),
        "no option 'temprature'",
    ),
    "unknown backbone": (lambda p, f: ("model.name", "resnet5"), "no backbone"),
    "unknown optimiser": (lambda p, f: ("optimizer.name", "sdg"), "no optimiser 'sdg'"),
    "bad augmentation": (lambda p, f: ("augment.hue", 0.9), "hue is 0.9"),
    "batch and devices": (lambda p, f: ("batch_size", 12), "8 devices cannot share"),
    "batch too large": (lambda p, f: ("batch_size", 8000), "exceeds the"),
    "warm-up too long": (
        lambda p, f: ("optimizer.warmup_epochs", 9.0),
        "raise config.epochs, or lower config.optimizer.warmup_epochs",
    ),
    "key of another library": (
        lambda p, f: ("lr", 0.1),
        "no config.lr; did you mean config.optimizer.learning_rate?",
    ),
    "word for a switch": (
        lambda p, f: ("model.remat", "false"),
        "remat is 'false': use True or False",
    ),
    "number out of its domain": (lambda p, f: ("epochs", math.nan), "config.epochs is"),
    "no weights": (
        lambda p, f: ("init", f"{p}/none.pth"),
        "config.init: There is no file .*none.pth",
    ),
    "no run for its heads": (lambda p, f: ("init_heads", True), "needs config.init,"),
    "bucket": (
        lambda p, f: ("data.dir", "gs://bucket/data"),
        "gs://bucket/data: only folders",
    ),
    "patches": (
        lambda p, f: ("model", {"name": "vit_tiny", "patch_size": 5, "image_size": 15}),
        "views of 16 px .* patches of 5 px",
    ),
    "unknown store": (lambda p, f: ("data.store", "emojy"), "emoji, folder:DIR"),
    "missing dataset": (lambda p, f: ("data.store", f"folder:{p}/none"), "none"),
    "missing split": (lambda p, f: ("data.split", "train"), "no split 'train'"),
    "unknown logger": (
        lambda p, f: ("loggers", ("wand",)),
        "no logger 'wand'; choose one of: wandb, tensorboard",
    ),
    "profile": (
        lambda p, f: ("profile", {"first_step": 23, "steps": 2}),
        "first_step=23 would trace nothing.* 23 steps",
    ),
    "schedule": (
        lambda p, f: (
            "data",
            tiny.get_config().data.to_dict()
            | {"pairing": "mixed", "semantic_schedule": ((0, 0.0), (3, 1.0))},
        ),
        "epoch 3 is not before the end of the run, config.epochs=0.1",
    ),
    "unknown evaluator": (lambda p, f: ("evals.knn.type", "knnn"), "config.evals.knn"),
    "evaluator option": (lambda p, f: ("evals.knn.neighbours", 3), "neighbours"),
    "evaluator target": (lambda p, f: ("evals.knn.target", "kind"), "kind"),
    "pairing": (
        lambda p, f: ("data.pairing", "all"),
        "config.data.pairing is 'all': .* semantic, augmented, both, mixed",
    ),
    "missing pair table": (lambda p, f: ("data.pairs", f"{p}/no.csv"), "no.csv"),
    "pair table of unknown images": (
        lambda p, f: (
            "data.pairs",
            pair_table(p, "first,second,label\nnoto/none,noto/1f600,\n"),
        ),
        "line 2: .* no image 'noto/none'",
    ),
    "pair table of another store": (
        lambda p, f: (
            "data.pairs",
            pair_table(
                p,
                "# store=folder:photos\n# split=all\n# fingerprint=abc\n"
                "first,second,label\nnoto/1f600,noto/1f603,grinning face\n",
            ),
        ),
        "folder:photos",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_sentence_before_anything_compiles(case, tmp_path, folder, monkeypatch):
    make, message = CASES[case]
    config = tiny.get_config()
    change(config, *make(tmp_path, folder))
    monkeypatch.setattr(
        main, "init_state", lambda *a: pytest.fail("compiled before the check")
    )
    with pytest.raises(UserError, match=message.replace("(", r"\(")) as error:
        main.run(config, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_views_larger_than_the_stored_images_are_said(tmp_path, caplog):
    config = tiny.get_config()
    open_training(config, tmp_path, devices=1)
    assert not caplog.text
    change(config, "image_size", config.data.image_size + 32)
    open_training(config, tmp_path, devices=1)
    assert "set config.data.image_size=" in caplog.text


def test_an_image_that_does_not_decode_is_named(tmp_path, folder):
    good = io.BytesIO()
    Image.new("RGB", (20, 20)).save(good, "PNG")
    (folder / "dog" / "broken.png").write_bytes(good.getvalue()[:40])
    config = tiny.get_config()
    change(config, "data.store", f"folder:{folder}")
    change(config, "data.split", "all")
    change(config, "data.dir", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="broken.png"):
        main.run(config, tmp_path / "run")


def test_unlabelled_images_train_on_augmentation_pairs_only(tmp_path, folder):
    flat = tmp_path / "flat"
    flat.mkdir()
    for i, path in enumerate(sorted(folder.rglob("*.png"))):
        path.rename(flat / f"{i}.png")
    config = tiny.get_config()
    for path, value in (
        ("data.store", f"folder:{flat}"),
        ("data.split", "all"),
        ("data.dir", str(tmp_path / "cache")),
        ("batch_size", 8),
        ("data.pairing", "augmented"),
    ):
        change(config, path, value)
    with pytest.raises(UserError, match="8 exceeds the 6 pairs"):
        main.run(config, tmp_path / "run")
    change(config, "data.pairing", "semantic")
    with pytest.raises(UserError, match="label"):
        main.run(config, tmp_path / "run")
    change(config, "data.pairing", "augmented")
    for i in range(2):
        shutil.copy(flat / "0.png", flat / f"more{i}.png")
    change(config, "method", "supcon")  # would be SimCLR without labels
    with pytest.raises(UserError, match="supcon learns from labels, but no pair"):
        main.run(config, tmp_path / "run")


def numbers_of_configs():
    """Name of each number that a config can have, and the method that it is an option of."""
    schema = flatten(common.get_config().to_dict())
    booleans = {"optimizer.by_epoch", "init_heads"}
    texts = {n for n, v in schema.items() if isinstance(v, str)}
    texts |= {"augment.interpolation", "augment_second.interpolation", "optimizer.name"}
    texts |= {n for n in schema if n.startswith("method_options")}
    texts |= {"model.zero_init_residual", "model.stem", "loggers"}
    names = {(name, "") for name in schema.keys() - texts - booleans}
    for method in methods.NAMES:
        options = inspect.signature(methods.get(method).create).parameters
        for name, option in list(options.items())[2:]:
            if type(option.default) in (int, float):
                names.add((f"method_options.{name}", method))
    for model in (ResNet, models.ViT):
        for field in dataclasses.fields(model):
            if field.type in (int, float):
                names.add((f"model.{field.name}", ""))
    return sorted(names)


def outside(domain):
    """Values of every kind that a domain leaves out."""
    yield from (math.nan, math.inf, -math.inf, "abc", True)
    yield domain.low if domain.above else domain.low - 1
    yield domain.high if domain.below else domain.high + 1
    if domain.whole:
        yield domain.low + 0.5


def test_every_number_of_a_config_has_a_domain():
    for name, method in numbers_of_configs():
        domain = find_domain(name, TRAINING, method)
        assert domain, f"{name} ({method}) has no domain in sp_jax/domains.py"
        for value in outside(domain):
            *sections, key = name.split(".")
            config = {key: value}
            for section in reversed(sections):
                config = {section: config}
            with pytest.raises(
                UserError, match=f"config.{name} is .*: give a "
            ) as error:
                check_domains({"method": method, **config}, TRAINING)
            assert len(str(error.value)) < 150


def test_a_domain_of_nothing_else():
    """No line of the table is about a number that no config has."""
    known = {name for name, _ in numbers_of_configs()}
    known |= {
        f"{method}.{name.split('.')[-1]}" for name, method in numbers_of_configs()
    }
    known |= {"evals.*.every_epochs", "model.chunks"}
    assert set(TRAINING) <= known
    detection = flatten(voc_faster_rcnn_c4.get_config().to_dict())
    assert set(DETECTION) - set(LOOP) <= set(detection)
    for name, value in detection.items():
        number = isinstance(value, int | float | tuple) and not isinstance(value, bool)
        if number and name != "loggers":
            assert find_domain(name, DETECTION), name


def test_workdir_of_a_different_config(tmp_path):
    config = tiny.get_config()
    with claim_workdir(tmp_path, config.to_dict()):
        pass
    config.profile.steps = 3  # does not touch the parameters
    with claim_workdir(tmp_path, config.to_dict()):
        pass
    config.seed = 5
    with pytest.raises(UserError, match="config.seed = 0, but now it is 5"):
        with claim_workdir(tmp_path, config.to_dict()):
            pass


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--config.sed=3"], "sed"),
        (["--config.seed=many"], "seed"),
        (["--confg=x"], "--config=configs/quickstart.py"),
        (["--config=configs/none.py"], "none.py"),
        (["--config.optimizer=adam"], "config.optimizer.name"),
        (["--config.method=simclrr"], "no method 'simclrr'"),
        # Not in the file: let through by the flag, and checked against create().
        (["--config.method_options.temprature=0.1"], "no option 'temprature'"),
    ],
)
def test_the_command_line_exits_with_2(tmp_path, flags, message):
    if not any(flag.startswith(("--config=", "--confg")) for flag in flags):
        flags = ["--config=tests/train/tiny.py", *flags]
    done = subprocess.run(
        [sys.executable, "-m", "sp_jax.main", f"--workdir={tmp_path}/run", *flags],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=100,
    )
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2, done.stderr
    assert len(errors) == 1 and message in errors[0]
    assert "Traceback" not in done.stderr


def test_every_shipped_config_is_complete():
    for path in sorted((ROOT / "configs").glob("[!_]*.py")):
        module = __import__(f"configs.{path.stem}", fromlist=["get_config"])
        plain = module.get_config().to_dict()
        validate.check_training(plain)


def test_eight_devices_are_here():
    assert jax.device_count() == 8
