"""The host's stream is timed for every setting."""

import pytest

from benchmarks import input as benchmark


@pytest.mark.slow
def test_rows_of_all_settings(capsys, tmp_path):
    benchmark.main(
        ["--images=2600", f"--dir={tmp_path}", "--pairings=augmented", "--workers=0,1",
         "--prefetch=0,1", "--batch_size=8", "--steps=2", "--rounds=1"]
    )  # fmt: skip
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in capsys.readouterr().out.splitlines()
        if "augmented" in line
    ]
    assert [row[:4] for row in rows] == [
        [store, "augmented", workers, prefetch]
        for store in ("emoji", "array_record")
        for workers, prefetch in (("0", "0"), ("0", "1"), ("1", "1"))
    ]
    for row in rows:
        assert int(row[4].replace(",", "")) > 0
        assert (row[6] == "") == (row[2] == "0")  # no worker has no memory


def test_row_is_median_and_range():
    setting = benchmark.Setting("emoji", "semantic", 2, 1)
    row = benchmark.markdown(setting, [30_000.0, 10_000.0, 11_000.0], 250.4)
    assert row == "| emoji | semantic | 2 | 1 | 11,000 | 10,000 to 30,000 | 250 |"
