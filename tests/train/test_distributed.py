"""Two real processes make one run, and the run survives the end of one."""

import re
import signal
import socket
import types

import jax
import numpy as np
import pytest

from benchmarks.gpu_checks import final_state
from sp_jax import distributed
from sp_jax.errors import UserError
from sp_jax.train.checkpoint import find_damage
from tests.train.processes import (
    STEPS,
    coded_drawings,
    finish,
    record,
    start,
    wait_for_step,
    wait_until,
)

# At the recipe's rate a rounding error grows to a percent in 20 steps.
CALM = "--config.dtype=float32", "--config.optimizer.learning_rate=0.003"


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The record of one process with one device."""
    workdir = tmp_path_factory.mktemp("runs") / "alone"
    finish(workdir, *CALM)
    return record(workdir)


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


@pytest.fixture
def start_two():
    """Start two processes of four devices each; they end with the test."""
    started = []

    def start_two(workdir, *flags, **different):
        coordinator = f"--coordinator=localhost:{free_port()}"
        for i in range(2):
            own = [f"--process={i}", *(f"--{k}={v[i]}" for k, v in different.items())]
            both = coordinator, "--processes=2", *flags
            started.append(start(workdir, *both, *own, devices=4))
        return started[-2:]

    yield start_two
    for process in started:
        process.kill()
        process.communicate()


def outputs(processes):
    return [process.communicate(timeout=300)[0] for process in processes]


@pytest.mark.slow
def test_the_run_outlives_its_processes(start_two, alone, tmp_path):
    """Eight devices with two copies of the state, eight copies on eight, two, one."""
    workdir = tmp_path / "run"
    processes = start_two(
        workdir, *CALM, "--config.fsdp=4", "--config.data.placement=device"
    )
    wait_until(lambda: find_damage(workdir / "checkpoints" / "5") is None)
    processes[1].kill()
    first, second = outputs(processes)
    assert processes[0].returncode and processes[1].returncode == -signal.SIGKILL
    assert "error: Process 0 of 2 ended in the middle of the run" in first
    assert "error: Process 1 of 2 ended" in second and str(workdir) in second

    processes = start_two(workdir, *CALM)
    wait_for_step(workdir, 12)
    processes[1].send_signal(signal.SIGINT)  # becomes SIGTERM, which all are told of
    first, second = outputs(processes)
    done = (workdir / "checkpoints" / str(STEPS)).exists()
    assert [p.returncode for p in processes] == [0 if done else 143] * 2, first + second
    assert re.search(r"Resuming from step \d+ of", first), first
    assert "knn/accuracy" in first and "knn/accuracy" not in second
    assert done or "SIGTERM: saved step" in first

    two = start(workdir, *CALM, devices=2)
    wait_for_step(workdir, 18)
    two.send_signal(signal.SIGTERM)
    (output,) = outputs([two])
    done = (workdir / "checkpoints" / str(STEPS)).exists()
    assert two.returncode == (0 if done else 143), output
    assert re.search(r"Resuming from step \d+ of", output)

    finish(workdir, *CALM)
    lines = record(workdir)
    assert [line.keys() for line in lines] == [line.keys() for line in alone]
    for line, other in zip(lines, alone, strict=True):
        for name, value in line.items():
            # Sums have other orders; kNN counts neighbours.
            tolerance = 0.02 if name.startswith("knn") else 1e-3
            assert value == pytest.approx(other[name], rel=tolerance, abs=1e-3), name


@pytest.mark.slow
def test_two_processes_with_jpeg_files_resume_to_the_bit(start_two, tmp_path):
    """Without workers, and killed with three workers each."""
    flags = (*coded_drawings(tmp_path / "coded"), "--config.evals={}")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    said = outputs(start_two(whole, *flags))
    assert (whole / "checkpoints" / str(STEPS)).exists(), said
    processes = start_two(killed, *flags, "--config.data.workers=3")
    wait_for_step(killed, 8)
    for process in processes:
        process.kill()
    outputs(processes)
    outputs(start_two(killed, *flags))
    assert record(killed) == record(whole)
    assert final_state(killed) == final_state(whole)


def test_processes_that_differ_are_refused(start_two, tmp_path):
    processes = start_two(tmp_path / "run", **{"config.seed": (1, 2)})
    for process, output in zip(processes, outputs(processes), strict=True):
        assert process.returncode == 2, output
        assert "error: The config of process 1 and of process 0 differ" in output
        assert "Traceback" not in output
    assert not (tmp_path / "run").exists()


def test_a_process_that_cannot_join_says_so(tmp_path):
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("::", 0))
        taken.listen()
        process = start(
            tmp_path,
            f"--coordinator=localhost:{taken.getsockname()[1]}",
            *("--processes=2", "--process=0"),
        )
        (output,) = outputs([process])
    assert process.returncode != 0
    assert "error: This process could not join the others at localhost:" in output
    assert "the port is free" in output


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((True, "a:1", 2, 0), "--distributed, or --coordinator"),
        ((False, "a:1", 2, None), "give all three"),
        ((False, "a:1", 2, 2), "no process 2 of 2"),
        ((False, "a", 2, 0), "HOST:PORT"),
        ((True, None, None, None), "found no other process"),
    ],
)
def test_wrong_flags(given, message):
    with pytest.raises(UserError, match=message):
        distributed.join(*given)
    assert jax.process_count() == 1


def test_a_launcher_that_nobody_asked_is_noticed(monkeypatch, caplog):
    distributed.warn_if_alone()
    assert not caplog.messages
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    distributed.warn_if_alone()
    assert "add --distributed" in caplog.messages[0]


def test_facts_are_compared_by_content(monkeypatch):
    rows = []

    def everywhere(digest):
        rows.append(digest)
        return np.stack(rows)

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(distributed.multihost_utils, "process_allgather", everywhere)
    distributed.check_equal({"config": {"a": (1, 2), "b": 1}})
    distributed.check_equal({"config": {"b": 1, "a": [1, 2]}})
    with pytest.raises(UserError, match="The config of process 2 and of process 0"):
        distributed.check_equal({"config": {"a": [1, 3], "b": 1}})


def test_processes_with_other_numbers_of_devices_are_refused(monkeypatch):
    devices = [types.SimpleNamespace(process_index=i) for i in (0, 0, 1)]
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "devices", lambda: devices)
    with pytest.raises(UserError, match=r"different numbers of devices \(2, 1\)"):
        distributed.check_equal({})
