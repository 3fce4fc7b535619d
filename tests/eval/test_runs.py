"""Reading the folders of runs, intact and damaged."""

import json
import os

import numpy as np
import pytest

from eval import report
from eval.compare import tables
from eval.compare.runs import read_run
from eval.detection import figure as detection_figure
from eval.evaluator import Number
from eval.results import write_result
from sp_jax.errors import UserError
from sp_jax.files import write_text
from tests.eval.fake_run import write_run
from tests.train import tiny

HEADLINE = (Number("accuracy"),)
ABOUT = {"protocol": "nearest", "step": 7, "weights": None, "images": {}}
ABOUT |= {"headline": HEADLINE}


@pytest.fixture
def run(tmp_path):
    """A run whose accuracy could not be told."""
    folder = write_run(tmp_path / "runs/one", tiny.get_config().to_dict())
    write_result(folder, "knn", {"accuracy": np.nan}, **ABOUT)
    return folder


def test_what_is_not_known_is_shown_as_nan(run):
    table = tables.make_table(report.compare([report.read_folder(run)]))
    assert table[1][0] == "knn" and table[1][-1] == "nan"


DAMAGED = {
    "eval/knn.json": ('{"half', "[]", '{"result": {}}', '{"result": 3}', "\x00\x01"),
    "config.json": ('{"half', "[]", "{}", '{"data": {}}', '{"data": 5}'),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_named(run, name):
    for text in DAMAGED[name]:
        (run / name).write_text(text)
        with pytest.raises(UserError, match=f"one/{name}") as error:
            report.read_folder(run)
        assert "\n" not in str(error.value)


def test_what_is_no_run_is_said(run, tmp_path):
    with pytest.raises(UserError, match="There is no folder .*/nothere"):
        report.read_folder(tmp_path / "nothere")
    with pytest.raises(UserError, match="but a folder of runs: give one of .*runs/one"):
        report.read_folder(tmp_path / "runs")
    os.remove(run / "eval/knn.json")
    with pytest.raises(UserError, match="one holds no evaluated run"):
        report.read_folder(run)
    (run / "config.json").write_text("[]")
    with pytest.raises(UserError, match="one/config.json"):
        read_run(run)


@pytest.mark.parametrize("name", ["config.json", "eval/detection.json"])
def test_a_damaged_detection_is_named(tmp_path, name):
    config = {
        "checkpoint_of_backbone": "",
        "seed": 0,
        "fingerprints": {"train": "", "test": ""},
    }
    config |= {"batch_size": 2, "total_steps": 7, "data": {}, "optimizer": {}}
    (tmp_path / "config.json").write_text(
        json.dumps(config | {"detector": {}, "dtype": ""})
    )
    write_result(tmp_path, "detection", {"ap": np.nan}, **ABOUT)
    found = {"names": np.array(["cat"]), "curves": np.zeros((1, 101))}
    np.savez(tmp_path / "detections.npz", **found)
    read = detection_figure.read_detection(tmp_path)
    assert np.isnan(read.content["result"]["ap"])
    for text in ('{"half', "[]", "{}"):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=f"no finished detection .*{name}"):
            detection_figure.read_detection(tmp_path)


def test_an_earlier_page_stays_where_a_new_one_fails(run, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "draw_retrieval", lambda *args: None)
    folders = [report.read_folder(run)]
    page = report.write_report(folders, report.compare(folders), tmp_path / "out")
    before = page.read_text()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError):
        write_text(page, "new")
    assert page.read_text() == before
    assert not [name for name in os.listdir(page.parent) if name.startswith(".")]
