"""A run's folder: held by one program, always the same run, and nothing in it is lost."""

import errno
import fcntl
import json
import math

import filelock
import jax.numpy as jnp
import pytest

from sp_jax.errors import UserError
from sp_jax.train.checkpoint import Checkpoints
from sp_jax.train.workdir import claim_workdir
from sp_jax.train.writer import MetricsWriter, read_metrics

CONFIG = {"seed": 0, "model": {"width": 4}, "data": {"store": "folder:here"}}
LINES = [{"step": step, "time": 1.5, "loss": 0.1 * step} for step in (1, 2, 3, 4)]


def claim(workdir, **changes):
    with claim_workdir(workdir, CONFIG | changes) as saved:
        return saved


def write_record(workdir, lines=LINES):
    path = workdir / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_one_program_at_a_time(tmp_path):
    with claim_workdir(tmp_path, CONFIG):
        before = (tmp_path / "config.json").read_bytes()
        with pytest.raises(UserError, match="Another program is training in"):
            claim(tmp_path)
        assert (tmp_path / "config.json").read_bytes() == before
    claim(tmp_path)


def test_a_file_system_without_locks(tmp_path, monkeypatch, caplog):
    def refuse(lock):
        raise OSError(errno.ENOLCK, "No locks available", str(tmp_path))

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    claim(tmp_path)
    assert "has no file locks" in caplog.text and (tmp_path / "config.json").is_file()


def test_where_the_system_has_no_locks_no_marker_file_stays(tmp_path, monkeypatch):
    """It would stay after a kill, and refuse the run for ever."""

    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with claim_workdir(tmp_path, CONFIG):  # as if killed here
        claim(tmp_path)


def test_where_the_images_lie_may_change(tmp_path):
    claim(tmp_path)
    claim(tmp_path, data={"store": "folder:elsewhere"})
    assert json.loads((tmp_path / "config.json").read_text())["data"]["store"].endswith(
        "elsewhere"
    )


def test_a_key_that_an_older_version_lacked_was_its_default(tmp_path):
    claim(tmp_path)
    claim(tmp_path, data=CONFIG["data"] | {"semantic_schedule": ()})
    schedule = ((0, 0.5),)
    with pytest.raises(UserError, match="semantic_schedule"):
        claim(tmp_path, data=CONFIG["data"] | {"semantic_schedule": schedule})


def test_a_lost_config_is_known_by_the_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep_last=2, keep_every=0)
    checkpoints.save(3, {"w": jnp.zeros(2)}, {"config": CONFIG, "window": []})
    checkpoints.close()
    with pytest.raises(UserError, match=r"config.model.width = 4, but now it is 8"):
        claim(tmp_path, model={"width": 8})
    assert not (tmp_path / "config.json").exists()
    assert claim(tmp_path)["config"] == CONFIG


@pytest.mark.parametrize("content", ["[1]", "null", "\xff\xfe", "[" * 100_000, "{"])
def test_a_damaged_config_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"config\.json"):
        claim(tmp_path)


@pytest.mark.parametrize("name", ["checkpoints", "eval", "tensorboard"])
def test_a_file_in_the_place_of_a_folder(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(UserError, match=f"{name} is a file"):
        claim(tmp_path)


@pytest.mark.parametrize("name", ["a\\b", "a[b]"])
def test_a_name_that_orbax_cannot_restore_from(tmp_path, name):
    with pytest.raises(UserError, match="in its name"):
        claim(tmp_path / name)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    "line",
    [
        "5",
        "null",
        '{"a": 1}',
        '{"step": "1", "time": 0}',
        '{"step": 1, "time": 0, "loss": "low"}',
        '{"step": 1, "ti',
        "[" * 100_000,
    ],
)
def test_a_damaged_line_of_the_record_is_refused(tmp_path, line):
    path = write_record(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line, *lines[1:], ""]))
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2"):
        claim(tmp_path)
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2"):
        MetricsWriter(tmp_path, 4)
    assert path.read_bytes() == before


def test_a_torn_last_line_goes(tmp_path):
    path = write_record(tmp_path)
    path.write_text(path.read_text()[:-7])
    assert read_metrics(tmp_path) == LINES[:-1]
    MetricsWriter(tmp_path, 3).close()
    assert read_metrics(tmp_path) == LINES[:-1]


@pytest.mark.parametrize("resumed_from, kept", [(4, 4), (2, 2), (0, 0)])
def test_lines_that_are_made_again_are_kept_aside(tmp_path, resumed_from, kept):
    write_record(tmp_path)
    MetricsWriter(tmp_path, resumed_from).close()
    assert read_metrics(tmp_path) == LINES[:kept]
    aside = tmp_path / "metrics.cut.jsonl"
    lines = aside.read_text().splitlines() if aside.exists() else []
    cut = [json.loads(line) for line in lines]
    assert cut == LINES[kept:]


def test_the_record_is_json_where_a_number_is_none(tmp_path):
    writer = MetricsWriter(tmp_path, 0)
    writer.write({"step": 1, "time": 0.0, "loss": math.nan, "rank": math.inf})
    writer.close()

    def refuse(name):
        raise ValueError(name)

    (text,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    line = json.loads(text, parse_constant=refuse)
    assert line["loss"] is None and line["rank"] is None
    (read,) = read_metrics(tmp_path)
    assert math.isnan(read["loss"])
