"""The kernels, the memory and the collectives of a compiled step are read correctly."""

import importlib.util
import json
import os

import jax
import pytest

from benchmarks import floor, hlo
from benchmarks.training import make_config
from sp_jax.sharding import make_mesh
from tests.methods.build import shallow_resnet


@pytest.fixture(autouse=True)
def _started_jax(monkeypatch):
    """The program chooses the devices before jax starts; the tests after it need theirs."""
    jax.devices()
    for name in ("JAX_PLATFORMS", "XLA_FLAGS"):
        monkeypatch.setenv(name, os.environ[name])


def test_prediction_by_hand():
    flags = floor.parse(["--step_ms=10", "--latency=20", "--network_latency=40"])
    found = {"all-reduce": [450_000_000], "all-gather": [900_000_000]}
    assert floor.predict(found, 1, flags) == 10
    # Twice half of the bytes at 450 GB/s: 1 ms, and 20 us; the gather is half of one.
    assert floor.predict(found, 2, flags) == pytest.approx(10 + 2 * 1.02)
    # In the host 7/8 of 2 ms; between 8 hosts 7/4 of an eighth at 50 GB/s.
    between = 7 / 4 * 450 / 8 / 50
    assert floor.predict(found, 64, flags) == pytest.approx(
        10 + 2 * (1.75 + between + 0.04)
    )


@pytest.mark.slow
def test_the_step_of_a_recipe():
    """A ResNet-18 has twenty normalisations; each sums forward and backward."""
    text, held = floor.compile_text(make_config("simclr", "resnet18", 32), fsdp=2)
    found = hlo.find_collectives(text)
    assert len(found["all-reduce"]) > 40
    gradients = 11.2e6 * 4 / 2
    assert sum(found["all-reduce"]) > gradients
    assert sum(found["all-gather"]) > gradients
    # Parameters and momentum, of each half.
    assert held == pytest.approx(2 * 11.7e6 * 4 / 2, rel=0.1)


def test_floor_of_a_step(capsys):
    """With jax's CUDA plugin a row; without it a sentence that says what to install."""
    flags = ["--methods=simclr", "--models=resnet18", "--batch_size=4", "--top=1"]
    if importlib.util.find_spec("jax_cuda13_plugin") is None:
        with pytest.raises(SystemExit, match="pip install"):
            floor.main(flags)
        return
    floor.main(flags)
    row = capsys.readouterr().out.splitlines()[2].split(" | ")
    assert int(row[3].replace(",", "")) > 300 and float(row[4]) > 0.1


def test_growth_is_found(tmp_path):
    """The last row of a program counts; other programs, less and a little more are fine."""
    path = tmp_path / "known.jsonl"
    row = {"method": "simclr", "model": "resnet50", "kernels": 1000, "jax": "1.2"}
    rows = [row | {"bytes": 1}, row | {"bytes": 10**9}]
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    known = floor.read_known(path)
    assert list(known) == [("simclr", "resnet50")]
    now = row | {"bytes": 10**9}
    assert floor.grown(now, known) == []
    assert floor.grown(now | {"kernels": 1050, "bytes": 5}, known) == []
    assert floor.grown(now | {"model": "resnet18", "kernels": 9999}, known) == []
    (line,) = floor.grown(now | {"kernels": 1051}, known)
    assert line == "simclr resnet50: 1,000 kernels before, 1,051 now"
    assert len(floor.grown(now | {"kernels": 2000, "bytes": 2 * 10**9}, known)) == 2
    floor.check_version(known, path, "1.2")
    with pytest.raises(SystemExit, match="measured with jax 1.2, and this is jax 1.3"):
        floor.check_version(known, path, "1.3")


@pytest.mark.slow
def test_memory_of_a_step():
    """Chunks keep less; with --run each setting has a time in each round."""
    words = ["--what=memory", "--batch_size=8", "--steps=1", "--rounds=2", "--run"]
    flags = floor.parse([*words, "--settings=plain,chunks=2"])
    config = make_config("simclr", "resnet18", 8)
    config.model.width = 8
    with shallow_resnet():
        rows = floor.measure_memory(config, flags, make_mesh(jax.devices()[:1]))
    plain, chunks = rows["plain"], rows["chunks=2"]
    assert chunks["kept"] < plain["kept"] and chunks["temporary"] < plain["temporary"]
    assert len(plain["ms"]) == len(chunks["ms"]) == 2 and min(plain["ms"]) > 0
    with pytest.raises(SystemExit, match="no setting 'half'"):
        floor.with_setting(config, "half")
