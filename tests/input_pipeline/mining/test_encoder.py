"""Runs that differ in their seed are one encoder; any other difference makes another."""

import types

import jax.numpy as jnp
import pytest

from input_pipeline.mining import encoder
from input_pipeline.pairs import pairing, save_table
from sp_jax.config import get_config
from sp_jax.train.checkpoint import Checkpoints


@pytest.fixture
def describe(tmp_path, make_store):
    """A function that makes a run of three steps and describes its backbone."""
    store = make_store([0] * 6 + [1] * 6)

    def make(seed, pairs=None, **changes):
        config = get_config()
        config.seed = seed
        config.update(changes)
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        checkpoints = Checkpoints(folder / "checkpoints", keep_last=2, keep_every=0)
        checkpoints.save(3, {"w": jnp.zeros(2)}, {"window": []})
        checkpoints.close()
        table = pairing.semantic_pairs(store, seed=seed)
        save_table(folder / "pairs.csv", pairs or table, store)
        info = {"config": config.to_dict(), "run": {"total_steps": 6}, "step": 3}
        if seed:  # Runs of before do not say how their pairs were made.
            info["pairs"] = (pairs or table).info()
        return encoder.describe(types.SimpleNamespace(info=info), folder)

    return types.SimpleNamespace(store=store, run=make)


def test_a_run_is_known_but_for_its_seed(describe):
    one = describe.run(0)
    assert one == describe.run(1) and len(one["run"]) == 64
    assert {k: one[k] for k in ("method", "step", "of")} == {
        "method": "simclr",
        "step": 3,
        "of": 6,
    }
    others = [describe.run(1, epochs=3.0), describe.run(1, method="byol")]
    others += [describe.run(1, pairing.own_pairs(describe.store))]
    assert len({x["run"] for x in (one, *others)}) == 4


def test_a_file_is_known_by_its_weights():
    backbone = types.SimpleNamespace(info={"guessed": True}, identity=lambda: "0a")
    assert encoder.describe(backbone, "weights.pth") == {"weights": "0a"}
