"""A damaged checkpoint is reported and the one before it is used."""

import errno
import logging
import os
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sp_jax.errors import UserError
from sp_jax.sharding import by_size, make_mesh
from sp_jax.train.checkpoint import MANIFEST, Checkpoints, find_steps
from sp_jax.train.step import TrainState

SCALING = pathlib.Path(__file__).parents[2] / "docs" / "scaling.md"


def _save_two(directory):
    checkpoints = Checkpoints(directory, keep_last=2, keep_every=0)
    for step in (10, 20):
        state = {"w": jnp.arange(5000.0) + step, "step": jnp.int32(step)}
        checkpoints.save(step, state, {"window": [{"loss": 0.1 + step}]})
    checkpoints.close()


def _largest(step_dir):
    files = [p for p in step_dir.rglob("*") if p.is_file() and p.name != MANIFEST]
    return max(files, key=lambda p: p.stat().st_size)


def _truncate(step_dir):
    os.truncate(_largest(step_dir), 100)


def _flip_one_bit(step_dir):
    path = _largest(step_dir)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _empty(step_dir):
    for path in step_dir.rglob("*"):
        if path.is_file():
            path.unlink()


def _lose_a_file(step_dir):
    _largest(step_dir).unlink()


def _kill_before_the_manifest(step_dir):
    (step_dir / MANIFEST).unlink()


@pytest.mark.parametrize(
    "damage",
    [_truncate, _flip_one_bit, _empty, _lose_a_file, _kill_before_the_manifest],
)
def test_damaged_newest_is_reported_and_the_one_before_is_used(
    tmp_path, caplog, damage
):
    directory = tmp_path / "checkpoints"
    _save_two(directory)
    damage(directory / "20")
    with caplog.at_level(logging.WARNING):
        checkpoints = Checkpoints(directory, keep_last=2, keep_every=0)
    template = {"w": jnp.zeros(5000), "step": jnp.int32(0)}
    state, meta = checkpoints.restore(template)
    np.testing.assert_array_equal(state["w"], np.arange(5000.0) + 10)
    assert meta["window"] == [{"loss": 10.1}]
    assert str(directory / "20") in caplog.text and "damaged" in caplog.text
    assert (tmp_path / "damaged" / "20.0").is_dir()  # kept for a person to look at
    # The same step can be saved again, and is then the newest.
    checkpoints.save(20, {"w": template["w"], "step": jnp.int32(20)}, {"window": []})
    checkpoints.close()
    again = Checkpoints(directory, keep_last=2, keep_every=0)
    assert int(again.restore(template)[0]["step"]) == 20
    again.close()


def test_keeps_the_last_and_the_multiples(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c", keep_last=2, keep_every=20)
    for step in (10, 20, 30, 40, 50):
        checkpoints.save(step, {"w": jnp.zeros(3)}, {})
    checkpoints.close()
    assert find_steps(tmp_path / "c") == [50, 40, 20]
    again = Checkpoints(tmp_path / "c", keep_last=2, keep_every=0)
    for step in (60, 70):
        again.save(step, {"w": jnp.zeros(3)}, {})
    again.close()
    assert find_steps(tmp_path / "c") == [70, 60, 20]  # it was asked for


def test_a_disk_without_room_is_found_before_orbax_does(tmp_path, monkeypatch):
    _save_two(tmp_path / "c")
    usage = shutil.disk_usage(tmp_path)._replace(free=1_020_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    checkpoints = Checkpoints(tmp_path / "c", keep_last=2, keep_every=0)
    state = {"w": jnp.zeros(5000)}  # 20 kB
    with pytest.raises(OSError, match="are needed") as error:
        checkpoints.save(30, state, {})
    assert error.value.errno == errno.ENOSPC and error.value.filename
    checkpoints.check_space({"w": jnp.zeros(2000)})
    checkpoints.close()
    assert find_steps(tmp_path / "c") == [20, 10]


def test_other_arrays_are_refused_in_words(tmp_path):
    _save_two(tmp_path / "c")
    checkpoints = Checkpoints(tmp_path / "c", keep_last=2, keep_every=0)
    with pytest.raises(UserError, match=r"c/20 cannot be restored"):
        checkpoints.restore({"w": jnp.zeros(4000), "step": jnp.int32(0)})
    checkpoints.close()


def test_what_a_killed_save_left_is_removed(tmp_path):
    left = tmp_path / "c" / "30.orbax-checkpoint-tmp"
    left.mkdir(parents=True)
    Checkpoints(tmp_path / "c", keep_last=2, keep_every=0).close()
    assert not left.exists()


def test_no_checkpoint_yet(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c", keep_last=2, keep_every=0)
    assert checkpoints.restore({"w": jnp.zeros(3)}) is None
    checkpoints.close()


def test_the_documented_way_to_read_it_by_orbax_alone(tmp_path, monkeypatch, caplog):
    """Eight devices, of which four share a copy, to two; warnings are errors."""
    params = {"kernel": jnp.arange(2.0**17).reshape(256, 512), "bias": jnp.ones(3)}
    optimizer = optax.adam(0.1).init(params)
    key = jax.random.key_data(jax.random.key(0))
    state = TrainState(np.int32(7), params, {"batch_stats": {}}, optimizer, key)
    state = jax.device_put(state, by_size(state, make_mesh(fsdp=4)))
    folder = tmp_path / "runs/simclr/checkpoints"
    checkpoints = Checkpoints(folder, keep_last=2, keep_every=0)
    checkpoints.save(7, state, {"config": {"seed": 1}})
    checkpoints.close()
    (snippet,) = re.findall(r"```python\n(.*?)```", SCALING.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    found = {}
    with caplog.at_level(logging.WARNING):
        exec(snippet, found)
    assert not caplog.records
    assert found["config"] == {"seed": 1} and found["step"] == 7
    restored = found["restored"]["state"]
    assert len(jax.tree.leaves(restored)) == len(jax.tree.leaves(state))
    for name, expected in params.items():
        array = found["params"][name]
        assert (
            array.sharding.mesh == found["mesh"] and len(array.addressable_shards) == 2
        )
        np.testing.assert_array_equal(array, expected)
    assert found["params"]["kernel"].addressable_shards[0].data.shape == (128, 512)
