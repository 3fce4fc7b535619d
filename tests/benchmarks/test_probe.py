"""Each way to fit a probe is timed, and learns."""

import pytest

from benchmarks import probe


@pytest.mark.slow
def test_a_row_for_each(capsys, monkeypatch):
    monkeypatch.setattr(probe, "EPOCHS", 10)
    monkeypatch.setattr(probe, "BATCH_SIZE", 32)
    probe.main(["--features=8", "--images=500", "--classes=3", "--rounds=1"])
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("| ")
    ][1:]
    assert [row[0] for row in rows] == [
        *("sweep", "lbfgs", "sgd", "scikit-learn", "torch")
    ]
    for row in rows:
        assert float(row[1]) > 0 and float(row[-1]) > 0.7  # chance is 1 / 3
    assert rows[0][4] == "1"


def test_extraction_gives_what_is_fitted(monkeypatch):
    def backbone(images):
        return images.mean((1, 2))

    backbone.size = 64
    monkeypatch.setattr(probe, "open_backbone", lambda args: backbone)
    noise = probe.extraction(probe.parse(["--images=60", "--classes=2"]))()
    assert noise.train.shape == (60, 3) and noise.test.shape == (12, 3)
    assert set(noise.answers) == {0, 1} and noise.train.std(0).min() > 0
    splits = ["--train_split=probe_train", "--test_split=probe_test"]
    drawings = probe.parse(["--store=emoji", *splits, "--target=category"])
    data = probe.extraction(drawings)()
    assert len(data.train) == len(data.labels) > len(data.test) == len(data.answers)
    assert data.classes == len(set(data.labels))


def test_row_is_median_range_and_ratio():
    row = probe.markdown("torch", [9.0, 4.0, 6.0, 20.0], [8.0, 2.0, 2.0, 4.0], 0.5)
    assert row == "| torch | 9 | 6 | 4 to 20 | 3 | 2 to 5 | 0.5000 |"


def test_options_that_exclude_each_other():
    for wrong in (["--features=8", "--store=emoji"], ["--images=3"]):
        with pytest.raises(SystemExit):
            probe.parse(wrong)
