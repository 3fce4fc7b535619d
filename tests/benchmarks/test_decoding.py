"""The pairs that a core decodes and crops are printed for each installed library."""

import os

from benchmarks import decoding


def test_rows_of_all_that_can_decode(monkeypatch, capsys):
    monkeypatch.setattr(decoding, "IMAGES", 4)
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: None)
    decoding.main(["--rounds=1", "--size=32", "--shorter_side=48"])
    printed = capsys.readouterr().out
    rows = [
        line.strip("| ").split("|") for line in printed.splitlines() if "| " in line
    ]
    found = {row[0].strip(): row for row in rows[1:]}
    assert list(found)[:3] == ["sp_jax", "sp_jax, semantic pairs", "torchvision, PIL"]
    assert all(int(row[1].replace(",", "")) > 0 for row in found.values())
    assert float(found["torchvision, PIL"][3]) > 0
    assert "64 px from 128 px, decoded at half of the size" in printed
