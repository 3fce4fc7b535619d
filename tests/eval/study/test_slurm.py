"""Runs as tasks of submitit, on its executor for one machine; SLURM itself is not here."""

import os
import pathlib
import signal
import time

import pytest

from eval.study import slurm
from sp_jax.errors import UserError
from tests.eval.study.jobs import calls, job


def wait_for(what, seconds=60):
    deadline = time.monotonic() + seconds
    while not what() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert what()


def test_tasks_make_the_runs(tmp_path):
    pool = tmp_path / "runs"
    jobs = [job("a"), job("b", after="a")]
    sent = slurm.submit(jobs, jobs, pool, {"timeout_min": 5}, cluster="local")
    assert [one.result() for one in sent] == ["a/seed0", "b/seed0"]
    for arm in "ab":
        assert calls(pool, arm, "second", "ends") == 1


@pytest.mark.slow
def test_a_preempted_task_comes_again(tmp_path):
    pool = tmp_path / "runs"
    jobs = [job("a", seconds=4)]
    (sent,) = slurm.submit(jobs, jobs, pool, {"timeout_min": 5}, cluster="local")
    wait_for(lambda: calls(pool, "a", "first"))
    # The executor passes this signal on only when the time is over: to the task itself.
    children = pathlib.Path(f"/proc/{sent.job_id}/task/{sent.job_id}/children")
    (task,) = children.read_text().split()
    os.kill(int(task), signal.SIGUSR2)
    assert sent.result() == "a/seed0"
    # Its command was ended, not left alone, and made again.
    assert calls(pool, "a", "first") == 2 and calls(pool, "a", "first", "ends") == 1


def test_mistakes_are_words(tmp_path):
    with pytest.raises(UserError, match="give NAME=VALUE"):
        slurm.read_options(["timeout_min"])
    assert slurm.read_options(["timeout_min=600", "slurm_partition=gpu"]) == {
        "timeout_min": 600,
        "slurm_partition": "gpu",
    }
    jobs = [job("a")]
    with pytest.raises(UserError, match="--launcher=slurm"):
        slurm.submit(jobs, jobs, tmp_path / "runs", {"minutes": 5}, cluster="local")
    with pytest.raises(UserError, match="--launcher=slurm"):
        slurm.submit(jobs, jobs, tmp_path / "runs", {})
