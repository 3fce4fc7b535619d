"""Each run of a study is made once, by one process, whatever ends the study."""

import os
import signal
import subprocess
import sys
import time

import pytest

from eval.results import write_result
from eval.study import runner
from eval.study.runner import Worker, make_all, missing
from sp_jax.errors import UserError
from tests.eval.study.jobs import calls, command, job


def make(jobs, pool, slots=1):
    """Make all; the runs that ended, with what was wrong."""
    ended = {}
    done = make_all(
        jobs,
        jobs,
        pool,
        [{}] * slots,
        lambda job, error: ended.update({job.arm: error}),
    )
    return done, ended


def drive(pool, seconds):
    """The same in a process of its own, which is waited for until a command runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.eval.study.driver", str(pool), str(seconds)]
    )
    deadline = time.monotonic() + 60
    while not calls(pool, "a", "first") and time.monotonic() < deadline:
        time.sleep(0.05)
    return process


def test_what_is_done_is_not_repeated(tmp_path):
    jobs = [job("a"), job("b")]
    assert make(jobs, tmp_path, slots=2) == (True, {"a": None, "b": None})
    changed = job("b", command("first"), command("second", 0.0, "other"))
    make([jobs[0], changed], tmp_path)
    assert [calls(tmp_path, "a", name) for name in ("first", "second")] == [1, 1]
    assert [calls(tmp_path, "b", name) for name in ("first", "second")] == [1, 2]
    # What comes after a repeated command is repeated.
    changed = job("b", command("first", 0.0, "other"), changed.commands[1])
    assert [c.name for c in missing(changed, tmp_path)] == ["first", "second"]
    make([changed], tmp_path)
    assert calls(tmp_path, "b", "second") == 3


def test_an_evaluation_belongs_to_its_checkpoint_and_images(tmp_path):
    train = command("first")
    evaluation = command("second", 0.0, "--checkpoint={folder}")
    here = job("a", train, evaluation._replace(images={"pets test": "0a"}))
    steps = tmp_path / "a/seed0/checkpoints"

    def save(step, text):
        (steps / step).mkdir(parents=True, exist_ok=True)
        (steps / step / "MANIFEST.sha256").write_text(text)

    def todo(job):
        return [one.name for one in missing(job, tmp_path)]

    about = {"protocol": "", "headline": (), "step": 1, "weights": None}
    about["images"] = {"pets test": "0a"}
    result = write_result(tmp_path / "a/seed0", "second", {}, **about)
    save("10", "first")
    make([here], tmp_path)
    save("9", "older")
    (steps / "20.orbax-checkpoint-tmp").mkdir()
    assert not todo(here) and not todo(job("a", train, evaluation))
    other = job("a", train, evaluation._replace(images={"pets test": "0b"}))
    assert todo(other) == ["second"]
    result.rename(tmp_path / "result.json")
    assert todo(here) == ["second"]
    (tmp_path / "result.json").rename(result)
    for step, text in (("10", "another"), ("12", "newer")):
        save(step, text)
        assert todo(here) == ["second"]
        make([here], tmp_path)
        assert not todo(here)
    assert calls(tmp_path, "a", "first") == 1 and calls(tmp_path, "a", "second") == 3


@pytest.mark.parametrize("text", ['{"first', "[]", '{"first": ["words"]}'])
def test_a_damaged_record_is_named(tmp_path, text):
    make([job("a")], tmp_path)
    (tmp_path / "a/seed0/study.json").write_text(text)
    with pytest.raises(UserError, match=r"a/seed0/study\.json is damaged"):
        missing(job("a"), tmp_path)


def test_a_failure_is_reported_and_stops_that_run_only(tmp_path):
    jobs = [
        job("bad", command("first", 0.0, "fail"), command("second")),
        job("after", after="bad"),
        job("good"),
    ]
    done, ended = make(jobs, tmp_path)
    assert done and ended["good"] is None
    for arm in ("bad", "after"):
        assert "first: there is no luck today" in ended[arm]
        assert "first.log" in ended[arm]
    # Not once more for the one that waits for it.
    assert calls(tmp_path, "bad", "first") == 1
    assert not calls(tmp_path, "bad", "second") and not calls(
        tmp_path, "after", "first"
    )


def test_a_run_comes_after_the_one_that_it_needs(tmp_path):
    first, second = job("a", command("first", 0.5)), job("b", after="a")
    Worker([first, second], tmp_path).make(second, {})
    assert calls(tmp_path, "a", "first", "ends") == 1
    ends = tmp_path / "a/seed0/ends_first", tmp_path / "b/seed0/calls_first"
    assert ends[0].stat().st_mtime <= ends[1].stat().st_mtime


def test_a_killed_study_goes_on_and_two_at_once_share(tmp_path):
    process = drive(tmp_path, 1.5)
    process.kill()  # its command lives on, and holds the lock of the run
    process.wait()
    assert not calls(tmp_path, "a", "first", "ends")
    jobs = [job("a", seconds=1.5), job("b", seconds=1.5)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner.time, "sleep", lambda s, sleep=time.sleep: sleep(s / 10))
        assert make(jobs, tmp_path)[0]
    # The command that was under way ended by itself before it was made again: never two
    # at a time. "b" was made meanwhile, and nothing that stood in a record came again.
    assert [calls(tmp_path, "b", name) for name in ("first", "second")] == [1, 1]
    assert [calls(tmp_path, "a", name) for name in ("first", "second")] == [2, 1]
    assert calls(tmp_path, "a", "first", "ends") == 2
    starts = (tmp_path / "b/seed0/calls_first").stat().st_mtime
    assert starts < (tmp_path / "a/seed0/calls_second").stat().st_mtime
    assert make(jobs, tmp_path)[0]
    assert [calls(tmp_path, "a", name) for name in ("first", "second")] == [2, 1]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_study_stops_its_commands(tmp_path, signum):
    process = drive(tmp_path, 30)
    started = time.monotonic()
    os.kill(process.pid, signum)
    assert process.wait() == 0
    assert time.monotonic() - started < 10
    assert not calls(tmp_path, "a", "first", "ends") and not calls(
        tmp_path, "b", "first"
    )


def test_what_ends_a_run_ends_no_other(tmp_path):
    (tmp_path / "b").write_text("no folder")
    jobs = [job("a", command("first", 0.0, "kill")), job("b"), job("c")]
    done, ended = make(jobs, tmp_path)
    assert done and ended["c"] is None
    assert "killed by SIGKILL; it had said: it printed nothing" in ended["a"]
    assert "Not a directory" in ended["b"] or "File exists" in ended["b"]


def test_weights_of_another_content_are_evaluated_again(tmp_path):
    weights = tmp_path / "net.pth"
    weights.write_bytes(b"first")
    ready = job("a", command("first", 0.0, f"--checkpoint={weights}"))
    make([ready], tmp_path)
    assert not missing(ready, tmp_path)
    weights.write_bytes(b"second")
    assert [one.name for one in missing(ready, tmp_path)] == ["first"]


def test_a_detection_that_sigterm_ended_early_is_not_done(tmp_path):
    meta = tmp_path / "a/seed0/detection/first/checkpoints/50/meta"
    meta.mkdir(parents=True)
    (meta / "metadata").write_text('{"config": {}, "run": {"total_steps": 100}}')
    _, ended = make([job("a")], tmp_path)
    assert "first: it was stopped before its end" in ended["a"]


def test_a_run_that_sigterm_ended_early_is_not_done(tmp_path):
    folder = tmp_path / "run"
    assert not runner._trained(folder)
    for step in (50, 100):
        meta = folder / "checkpoints" / str(step) / "meta"
        meta.mkdir(parents=True)
        (meta / "metadata").write_text('{"config": {}, "run": {"total_steps": 100}}')
        assert runner._trained(folder) == (step == 100)


def test_devices_are_shared_evenly(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,3,5")
    one_each = [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in "0235"]
    assert runner.find_devices(0) == one_each
    shares = [one["CUDA_VISIBLE_DEVICES"] for one in runner.find_devices(2)]
    assert shares == ["0,3", "2,5"]
    with pytest.raises(UserError, match="there are 4 GPUs"):
        runner.find_devices(5)
    for nothing in ("", "-1", "NoDevFiles"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", nothing)
        assert runner.find_devices(3) == [{}, {}, {}]


def test_each_run_has_as_many_cores(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cores: given.append(cores))
    jobs = [job(name, command("first")) for name in "abcdef"]
    make(jobs, tmp_path, slots=6)
    assert len(given) == 6 and {len(cores) for cores in given} == {2}
