"""The command that trains a detector: it learns, resumes, and explains mistakes."""

import json
import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.eval import scenes_faster_rcnn_c4, voc_faster_rcnn_c4
from eval.compare import tables
from eval.detection import figure, train
from eval.detection.data import scenes
from sp_jax.errors import UserError
from sp_jax.train.feed import StreamedFeed
from sp_jax.train.writer import read_metrics
from tests.methods.build import shallow_resnet

STEPS = 140


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("detection") / "scenes"
    scenes.write(out, train=10, test=2, seed=3)
    return out


def make_config(folder, **changes) -> ConfigDict:
    config = scenes_faster_rcnn_c4.get_config()
    config.model.width = 8
    config.model.stem = "small"
    config.data.store = f"folder:{folder}"
    config.data.test_split = "train"  # what it has seen
    config.data.sizes = ((72, 96),)
    config.data.test_size = (72, 96)
    config.detector.anchor_sizes = (16, 32, 48)
    config.detector.train_proposals = 40
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-2
    config.optimizer.warmup_steps = 10
    config.optimizer.drops = (110,)
    config.total_steps = STEPS
    config.log_every = 20
    config.checkpoint.every = 100
    config.update(changes)
    return config


@pytest.mark.slow
def test_it_learns_scenes_that_it_has_seen(folder, tmp_path, monkeypatch):
    trained = tmp_path / "trained"
    with shallow_resnet():
        train.run(make_config(folder), trained)
    lines = [line for line in read_metrics(trained) if "loss" in line]
    assert lines[-1]["loss"] < 0.6 * lines[0]["loss"]
    written = json.loads((trained / "eval/detection.json").read_text())
    assert written["result"]["ap50"] > 0.5 and written["step"] == STEPS
    assert written["result"]["ap"] <= written["result"]["ap50"]
    assert "Faster R-CNN" in written["protocol"]
    assert (trained / "detections.png").stat().st_size > 0
    # A training takes a minute: what else needs one is here.
    check_comparison(trained, tmp_path)
    check_the_folder_belongs_to_it(folder, trained, tmp_path, monkeypatch)
    with pytest.raises(UserError, match="holds a detector"):
        train.run(make_config(folder), tmp_path / "new", str(trained))


class Killed(Exception):
    pass


@pytest.mark.slow
def test_stopped_is_uninterrupted(folder, tmp_path, monkeypatch):
    config = make_config(
        folder,
        total_steps=9,
        log_every=2,
        checkpoint={"every": 4},
        optimizer={"warmup_steps": 2, "drops": (8,)},
    )
    advance = StreamedFeed.advance

    def until(self, state, most):
        if int(state.step) == 7:
            raise Killed
        return advance(self, state, most)

    with shallow_resnet():
        train.run(config, tmp_path / "whole")
        with monkeypatch.context() as patch:
            patch.setattr(StreamedFeed, "advance", until)
            with pytest.raises(Killed):
                train.run(config, tmp_path / "stopped")
        train.run(config, tmp_path / "stopped")

    def numbers(name):
        timing = ("time", "step_ms", "images_per_sec")
        return [
            {k: v for k, v in line.items() if k not in timing}
            for line in read_metrics(tmp_path / name)
        ]

    assert numbers("stopped") == numbers("whole")
    one, two = (
        np.load(tmp_path / name / "detections.npz") for name in ("whole", "stopped")
    )
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


def check_comparison(trained, tmp_path):
    folders = [str(trained)] * 2
    table = tables.make_table(figure.compare(folders, tmp_path / "out"))
    assert table[0][3:] == [figure.RANDOM]
    ap = json.loads((trained / "eval/detection.json").read_text())["result"]["ap"]
    assert table[1][1:] == ["ap", "", f"{ap:.3f}"]  # the same one twice counts once
    assert (tmp_path / "out/detection.png").stat().st_size > 0
    assert "Faster R-CNN" in (tmp_path / "out/detection.html").read_text()
    assert f"ap,{figure.RANDOM},0," in (tmp_path / "out/detection.csv").read_text()

    shutil.copytree(trained, tmp_path / "other")
    path = tmp_path / "other/config.json"
    config = json.loads(path.read_text())
    config["optimizer"]["learning_rate"] = 1.0
    path.write_text(json.dumps(config))
    both = [folders[0], str(tmp_path / "other")]
    with pytest.raises(UserError, match=r"differ in their optimizer\.learning_rate"):
        figure.compare(both, tmp_path)
    config = json.loads((trained / "config.json").read_text())
    config["data"]["workers"] = 7  # how it is read, not what
    path.write_text(json.dumps(config))
    figure.compare(both, tmp_path)
    config["fingerprints"]["train"] = "other boxes"
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match="differ in their images: train"):
        figure.compare(both, tmp_path)
    with pytest.raises(UserError, match="holds no finished detection"):
        figure.compare([str(tmp_path)], tmp_path)


def test_mistakes_show_before_training(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "fit", lambda *a: pytest.fail("it trained"))

    def check(words, checkpoint="", **changes):
        with pytest.raises(UserError, match=words):
            train.run(make_config(folder, **changes), tmp_path / "run", checkpoint)

    with shallow_resnet():
        check("There is no config.speed", speed=1)
        check("config.total_steps is 0", total_steps=0)
        check("would trace nothing", profile={"first_step": 10_000, "steps": 1})
        check("batch_size is 12, which 8 devices", batch_size=12)
        check("no folder .*nothing", checkpoint=str(tmp_path / "nothing"))
        check("anchors", detector={"anchors": 3})
        check("min_score is 2.0", detector={"min_score": 2.0})
        check("has no split 'val'", data={"test_split": "val"})
        check("in the warm-up", optimizer={"drops": (5,)})
        check("There is no backbone", model={"name": "resnet1"})
    config = voc_faster_rcnn_c4.get_config()
    config.data.store = "folder:/nowhere"
    with pytest.raises(UserError, match="There is no folder"):
        train.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def check_the_folder_belongs_to_it(folder, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "fit", lambda *a: None)
    shutil.copytree(trained, tmp_path / "run")
    with shallow_resnet():
        train.run(make_config(folder, test_batch_size=4), tmp_path / "run")
        with pytest.raises(UserError, match=r"config\.seed = 0, but now it is 1"):
            train.run(make_config(folder, seed=1), tmp_path / "run")
