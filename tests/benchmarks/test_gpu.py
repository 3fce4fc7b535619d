"""The order of the parts, which parts fit into the time, and the record of the others."""

import importlib.util
import sys
import time

import pytest

from benchmarks import gpu

WAIT = "import time; print('begun', flush=True); time.sleep(60)"


def test_what_does_not_fit_is_skipped_and_what_is_too_long_is_stopped(
    tmp_path, monkeypatch, capsys
):
    parts = [
        gpu.Part("first", 0.0, "it works", (["-c", "print(6 * 7)"],)),
        gpu.Part("broken", 0.0, "it fails", (["-c", "raise SystemExit(3)"],)),
        gpu.Part("large", 99.0, "it is too long to begin", (["-c", "print(1)"],)),
        gpu.Part("long", 0.0, "it takes longer than thought", (["-c", WAIT],)),
    ]
    monkeypatch.setattr(gpu, "make_parts", lambda out, small: parts)
    began = time.monotonic()
    gpu.main(["--minutes=0.1", f"--out={tmp_path}"])
    assert time.monotonic() - began < 30
    page = (tmp_path / "gpu.md").read_text()
    assert page == capsys.readouterr().out
    assert "42" in page and "failed with code 3" in page
    assert "## large: skipped" in page and not (tmp_path / "large.txt").exists()
    assert "stopped after" in page
    assert (tmp_path / "long.txt").read_text() == "begun\n"
    with pytest.raises(SystemExit):
        gpu.main(["--parts=nothing", f"--out={tmp_path}"])
    assert "choose from first, broken, large, long" in capsys.readouterr().err


def test_each_part_is_a_command_that_is_there(tmp_path):
    for small in (False, True):
        parts = gpu.make_parts(tmp_path, small)
        assert len({part.name for part in parts}) == len(parts)
        # What has to be known first, and fits into a short day.
        assert [part.name for part in parts[:3]] == ["device", "resident", "attention"]
        assert sum(part.minutes for part in parts[:3]) < 7
        modules = [w[1] for part in parts for w in part.commands if w[0] == "-m"]
        assert all(map(importlib.util.find_spec, modules)) and len(modules) > 12
    outcome = gpu.run(["-c", gpu.ABOUT], tmp_path / "about.txt", 100)
    text = (tmp_path / "about.txt").read_text()
    assert outcome == "done", text
    assert "sp_jax" in text and f"Python {sys.version.split()[0]}" in text
