"""A scripted person curates in a real browser, and the server is killed meanwhile."""

import json
import shutil

import pytest

from benchmarks import curation
from input_pipeline import pairs
from input_pipeline.pairs import pairing
from input_pipeline.stores import open_store


@pytest.mark.slow
def test_nothing_is_lost(tmp_path, monkeypatch):
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("Chromium and its driver are not installed.")
    monkeypatch.setenv("SP_JAX_DATA", str(tmp_path))
    store = open_store("emoji")
    table = pairing.semantic_pairs(store, seed=0)
    pairs.save_table(tmp_path / "pairs.csv", table, store)
    words = ["--store=emoji", f"--pairs={tmp_path / 'pairs.csv'}", "--count=20"]
    words += [
        "--single=3",
        "--make=2",
        "--errors=0.3",
        "--kills=2",
        f"--out={tmp_path / 'out'}",
    ]
    curation.main(words)
    sheets = json.loads((tmp_path / "out").read_text())["sheets"]
    assert sheets["kills"] == 2 and sheets["decisions lost"] == 0
    assert sheets["precision of the exported table"] == 1
    assert 0 < min(sheets["seconds of sheets"])
