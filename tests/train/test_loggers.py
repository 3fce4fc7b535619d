"""Loggers get the numbers of metrics.jsonl, and cannot disturb the training."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from sp_jax.errors import UserError
from sp_jax.methods import RunSize
from sp_jax.sharding import make_mesh
from sp_jax.train import loggers
from sp_jax.train.log import RunLog
from sp_jax.train.writer import read_metrics
from tests.train.processes import ROOT

CONFIG = {"method": "simclr", "data": {"split": "all"}}
SIZE = RunSize(total_steps=40, steps_per_epoch=10, batch_size=4, num_images=8)

# Keeps what it gets, and fails where it is told to.
MODULE = """
import json, time

class Logger:
    def __init__(self, path):
        self.path, self.lines = path, []
    def write_scalars(self, step, scalars):
        self.lines.append([step, scalars])
        {write}
    def close(self):
        {close}
        self.path.write_text(json.dumps(self.lines))

def create(workdir, config, record):
    {create}
    logger = Logger(workdir / f"{{__name__.split('.')[1]}}.json")
    logger.lines += [[step, dict(scalars)] for step, scalars in record]
    return logger
"""
FAILURES = {
    "sound": {},
    "no_network": {"create": "raise OSError('no route to host')"},
    "quota": {"write": "if step == 8: raise RuntimeError('quota')"},
    "leaves": {"write": "raise SystemExit(3)"},
    "hangs": {"close": "time.sleep(30)"},
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "own_loggers"
    folder.mkdir()
    (folder / "__init__.py").touch()
    for name, parts in FAILURES.items():
        parts = {"create": "pass", "write": "pass", "close": "pass"} | parts
        (folder / f"{name}.py").write_text(MODULE.format(**parts))
    monkeypatch.syspath_prepend(tmp_path)
    yield folder.name
    for name in [name for name in sys.modules if name.startswith(folder.name)]:
        del sys.modules[name]


def run(workdir, names, lines, resume_step=0):
    log = RunLog(workdir, SIZE, 2, resume_step, [], make_mesh(), names, CONFIG)
    for step, numbers in lines:
        log.write(step, numbers)
    log.close()


LINES = [(0, {"knn/accuracy": 0.3}), (4, {"loss": 2.0}), (8, {"loss": 1.5})]
LINES += [(8, {"knn/accuracy": 0.4}), (12, {"loss": float("nan")})]


def as_logged(workdir):
    """The record as loggers get it; NaN is not equal to itself, so as text."""
    lines = [dict(line) for line in read_metrics(workdir)]
    return json.dumps([[line.pop("step"), line] for line in lines])


def test_a_logger_that_fails_is_said_and_stops_nothing(
    package, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(loggers, "PATIENCE", 2.0)
    run(tmp_path, [f"{package}.{name}" for name in FAILURES], LINES)
    assert (tmp_path / "sound.json").read_text() == as_logged(tmp_path)
    assert len(read_metrics(tmp_path)) == len(LINES)
    said = capsys.readouterr().out
    for name, words in {
        "no_network": "has failed (OSError: no route to host)",
        "quota": "has failed (RuntimeError: quota)",
        "leaves": "has failed (SystemExit: 3)",
        "hangs": "has not ended after 2 s",
    }.items():
        assert said.count(f"'{package}.{name}'") == 1 and words in said, said
    assert "sound" not in said


def test_a_resumed_run_gives_loggers_what_it_goes_on_from(package, tmp_path):
    names = [f"{package}.sound"]
    run(tmp_path, (), LINES)  # other loggers than afterwards
    assert not (tmp_path / "tensorboard").exists()
    run(tmp_path, names, LINES[2:], resume_step=4)
    assert (tmp_path / "sound.json").read_text() == as_logged(tmp_path)
    assert len(read_metrics(tmp_path)) == len(LINES)


@pytest.mark.parametrize(
    "names, words",
    [
        ("wandb", "config.loggers is 'wandb': give a tuple"),
        (("tensorbord",), "no logger 'tensorbord'; choose one of: tensorboard, wandb"),
        (("json.decoder",), "'json.decoder' .* has no create"),
    ],
)
def test_a_name_that_is_no_logger(names, words):
    with pytest.raises(UserError, match=words):
        loggers.check(names)


CHILD = """
import json, os, pathlib, sys
from tests.train import test_loggers
lines = json.loads(sys.argv[3])
if sys.argv[4] == "kill":
    def kill(log):
        while log._loggers[0]._lines.qsize(): pass
        time.sleep(3)
        os.kill(os.getpid(), 9)
    import time
    test_loggers.RunLog.close = kill
test_loggers.run(pathlib.Path(sys.argv[1]), ["wandb"], lines, int(sys.argv[2]))
"""


@pytest.mark.skipif(
    not importlib.util.find_spec("wandb"), reason='needs pip install ".[wandb]"'
)
def test_wandb_gets_each_step_once(tmp_path):
    """Offline, with its own library, killed twice, and read by its own reader."""
    workdir = tmp_path / "my_run"
    workdir.mkdir()
    env = {name: x for name, x in os.environ.items() if not name.startswith("WANDB")}
    env |= {"WANDB_MODE": "offline", "WANDB_PROJECT": "pairs", "PYTHONPATH": str(ROOT)}

    def start(resume_step, lines, how="end"):
        words = (workdir, str(resume_step), json.dumps(lines), how)
        command = [sys.executable, "-c", CHILD, *words]
        return subprocess.run(command, env=env, capture_output=True, text=True)

    # Step 16 may be lost in the kill; 12 to 20 are made again; 20 is not lost.
    first = [(0, {"knn": 0.3}), (4, {"loss": 2.0}), (8, {"loss": 1.5})]
    first += [(8, {"knn": 0.4}), (12, {"loss": 1.4}), (16, {"loss": 1.3})]
    start(0, first, "kill")
    again = [(12, {"loss": 1.4}), (16, {"loss": 1.3}), (20, {"loss": 1.25})]
    done = start(8, again)
    assert done.returncode == 0 and "logger" not in done.stdout, done
    done = start(20, [(24, {"loss": 1.0, "knn": 0.5})])
    assert done.returncode == 0 and "logger" not in done.stdout, done

    files = sorted(workdir.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 3
    runs, rows = [], []
    for file in files:
        inspect = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", file]
        text = subprocess.run(inspect, env=env, capture_output=True, text=True).stdout
        for record in map(json.loads, text.splitlines()):
            runs += [record["run"]] if record["type"] == "run" else []
            rows += [record["history"]] if record["type"] == "history" else []
    wanted = {}
    for line in read_metrics(workdir):
        wanted.setdefault(line.pop("step"), {}).update(line)
    assert [row["step"]["num"] for row in rows] == list(wanted)
    for row, line in zip(rows, wanted.values(), strict=True):
        found = {n: x for n, x in row["item"].items() if n not in ("_step", "_runtime")}
        time = line.pop("time")
        # The record has the time at which the line was made again.
        assert found.pop("_timestamp") == pytest.approx(time, abs=300)
        assert found == line
    (id,) = {one["run_id"] for one in runs}
    assert id == (workdir / "wandb_id.txt").read_text().strip()
    for one in runs:
        assert one["display_name"] == "my_run" and one["project"] == "pairs"
        config = one["config"]["update"]
        assert config["method"] == "simclr" and config["data.split"] == "all"
