"""The report of two tiny runs, trained here, and evaluation from a checkpoint alone."""

import base64
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import sp_jax
from eval import cka, figures, report
from eval.compare import tables
from eval.compare.runs import AP, SP
from input_pipeline.stores import open_store
from sp_jax import main
from sp_jax.errors import UserError
from sp_jax.features import Extractor
from tests.train import tiny


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    workdirs = []
    for pairing, seed in (("semantic", 0), ("semantic", 1), ("augmented", 0)):
        config = tiny.get_config()
        config.epochs = 0.03
        config.seed = seed
        config.data.pairing = pairing
        config.evals.retrieval = dict(
            type="retrieval",
            dataset="emoji",
            splits=("probe_train", "probe_test"),
        )
        workdirs.append(folder / f"{pairing}{seed}")
        main.run(config, workdirs[-1])
    return workdirs


def test_report(runs, tmp_path):
    read = [report.read_folder(workdir) for workdir in runs]
    comparison = report.compare(read)
    table = tables.make_table(comparison)
    assert table[0][2:] == ["chance", "untrained", f"{SP} (n = 2)", AP]
    numbers = [
        json.loads((workdir / "eval/knn.json").read_text())["result"]["accuracy"]
        for workdir in runs
    ]
    row = next(row for row in table if row[0] == "knn")
    spread = np.std(numbers[:2], ddof=1)
    assert row[4] == f"{np.mean(numbers[:2]):.3f} ± {spread:.3f}"
    assert row[5] == f"{numbers[2]:.3f}"
    # Both seeds of the network without a step, of which one is AP's, too.
    assert "±" in row[3]
    difference = tables.find_differences(comparison)[0]
    assert difference.interval.mean == pytest.approx(numbers[0] - numbers[2])
    assert difference.word == "one seed"
    figures.draw(
        Extractor(sp_jax.load(runs[0])),
        open_store("emoji", "probe_test"),
        "category",
        runs[0] / "figures",
        run=runs[0],
        points=50,
    )
    page = report.write_report(read, comparison, tmp_path).read_text()
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    # Curves; retrieval, views of SP and AP; map, neighbours and filters of one run.
    curves = list((tmp_path / "curves").glob("*.png"))
    assert len(curves) >= 3 and len(pictures) == len(curves) + 6
    for picture in pictures:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))
        assert pixels[..., :3].std() > 5
    assert not re.findall(r'(?:src|href)="(?!data:)', page)  # needs no network
    assert " x cpu" in page and "Made by <code>python" in page

    # Frames are of what the evaluation counts; without its images there is no sheet.
    config = {**read[0].config, "evals": {"retrieval": dict(dataset="emoji")}}
    config["evals"]["retrieval"] |= {"splits": ("probe_test",), "match": "category"}
    first = {SP: read[0].run}
    said = report.draw_retrieval(first, config, tmp_path / "sheet.png")
    assert said.startswith("Green: the same category. Neighbours are of another artist")
    config["evals"]["retrieval"]["dataset"] = "folder:/gone"
    gone = [read[0]._replace(config=config), *read[1:]]
    page = report.write_report(gone, comparison, tmp_path / "gone").read_text()
    assert "Green" not in page and not (tmp_path / "gone/retrieval.png").exists()


def test_report_of_nothing(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        report.read_folder(tmp_path)


def test_a_checkpoint_alone_gives_the_same_number(runs):
    """The evaluator's own command agrees with the evaluation at the end of the run."""
    during = json.loads((runs[0] / "eval/knn.json").read_text())
    command = [sys.executable, "-m", "eval.knn", f"--checkpoint={runs[0]}"]
    command += ["--dataset=emoji", "--train_split=probe_train", "--name=again"]
    command += ["--test_split=probe_test", "--target=category"]
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    again = json.loads((runs[0] / "eval/again.json").read_text())
    assert again["result"] == pytest.approx(during["result"], abs=2e-3)
    for name in ("step", "weights", "images"):
        assert again[name] == during[name] and during[name]


def test_cka_between_two_checkpoints(runs):
    options = dict(other=str(runs[1]), dataset="emoji", split="probe_test")
    options["image_size"] = 16
    evaluate = cka.create(**options)
    found = [evaluate(Extractor(sp_jax.load(runs[i])), 0)["cka"] for i in (0, 1)]
    assert 0.01 < found[0] < 0.9
    assert found[1] == pytest.approx(1, abs=1e-5)
    assert cka.create(**options).protocol.startswith(
        f"linear CKA with {runs[1]}, step 7 (weights "
    )
    with pytest.raises(UserError, match="a folder of runs: give one of .*augmented0"):
        cka.create(**options | {"other": str(runs[0].parent)})


def test_load_refuses_a_damaged_step(runs):
    with pytest.raises(UserError, match="does not exist"):
        sp_jax.load(runs[0] / "checkpoints" / "3")
