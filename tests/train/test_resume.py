"""Killed and resumed is bit-identical to uninterrupted, in real processes."""

import re
import signal

import pytest

import eval as evals
import sp_jax
from benchmarks.gpu_checks import final_state
from eval.compare.runs import read_run
from eval.results import evaluate_untrained, read_results
from input_pipeline.pairs.training import pairs_info
from sp_jax.train.checkpoint import find_damage, find_steps, read_meta
from sp_jax.train.starts import read_starts
from tests.train.processes import (
    STEPS,
    coded_drawings,
    finish,
    read_lines,
    record,
    start,
    wait_for_step,
)


def final_bytes(workdir):
    assert find_damage(workdir / "checkpoints" / str(STEPS)) is None
    assert find_steps(workdir / "checkpoints")[0] == STEPS
    return final_state(workdir)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    finish(workdir)
    return workdir


def test_the_record_is_complete(uninterrupted):
    lines = record(uninterrupted)
    trained = [line["step"] for line in lines if "loss" in line]
    assert trained == [4, 8, 12, 16, 20, 23]
    for line in read_lines(uninterrupted):
        if "step_ms" in line:  # Two views of each pair.
            assert line["images_per_sec"] == 2 * line["pairs_per_sec"] > 0
    evaluated = [line["step"] for line in lines if "knn/accuracy" in line]
    assert evaluated == [0, 8, 16, 23]
    files = ("views.png", "pairs.csv", "config.json", "parameters.txt", "eval/knn.json")
    for name in (*files, "eval/untrained/knn.json"):
        assert (uninterrupted / name).stat().st_size > 0
    assert list((uninterrupted / "tensorboard").iterdir())
    run = read_run(uninterrupted)
    assert run.step == run.total == STEPS and "step" not in run.facts
    (only,) = read_starts(uninterrupted)
    assert only["step"] == 0 and "-m sp_jax.main --config=" in only["command"]
    assert only["device"] == "1 x cpu" and "sp_jax" in only["versions"]


def test_the_untrained_network_can_be_made_again(uninterrupted):
    first, last = sp_jax.load(uninterrupted, untrained=True), sp_jax.load(uninterrupted)
    assert first.info["step"] == 0 and first.fingerprint() != last.fingerprint()
    found = {one.name: one for one in read_results(uninterrupted) if one.untrained}
    content = found["knn"].content
    assert content["step"] == 0 and content["weights"] == first.identity()
    evaluate = evals.make("knn", content["options"])

    def refuse(*args):
        raise AssertionError("it was measured before")

    known = evaluate._replace(measure=refuse)
    again = evaluate_untrained(uninterrupted, {"other name": known})
    assert again["other name"] == content
    pairs = read_meta(uninterrupted / "checkpoints" / str(STEPS))["pairs"]
    assert pairs["recipe"] == {"by": "labels", "rounds": 1} and pairs["same"] == 0
    assert pairs == pairs_info(uninterrupted)


@pytest.mark.parametrize(
    "kill_after",
    [
        12,
        pytest.param(4, marks=pytest.mark.slow),
        pytest.param(20, marks=pytest.mark.slow),
    ],
)
def test_sigkill_changes_nothing(uninterrupted, tmp_path, kill_after):
    workdir = tmp_path / "run"
    process = start(workdir)
    wait_for_step(workdir, kill_after)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    finish(workdir, "--config.loggers=()")
    assert record(workdir) == record(uninterrupted)
    assert final_bytes(workdir) == final_bytes(uninterrupted)
    first, again = read_starts(workdir)
    assert first["step"] == 0 and again["step"] % 5 == 0


@pytest.mark.slow
@pytest.mark.parametrize("coded", [False, True], ids=["pixels", "JPEG files"])
def test_sigkill_changes_nothing_of_a_schedule(tmp_path, coded):
    """Which pairs are semantic changes at step 11; colours change on one view only.

    Of JPEG files the whole run has no workers, the other three until it is killed.
    """
    flags = (
        "--config.data.pairing=mixed",
        "--config.data.semantic_schedule=((0, 0.0), (0.05, 1.0))",
        "--config.augment_second.jitter=0.0",
        "--config.augment_second.grayscale=0.0",
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    flags += coded_drawings(tmp_path / "coded") if coded else ()
    finish(whole, *flags)
    process = start(killed, *flags, f"--config.data.workers={3 if coded else 0}")
    wait_for_step(killed, 8)
    process.kill()
    process.communicate()
    finish(killed, *flags)
    assert record(killed) == record(whole)
    assert final_bytes(killed) == final_bytes(whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["TERM", "INT"]
)
def test_a_signal_saves_and_goes_on(uninterrupted, tmp_path, number, code):
    workdir = tmp_path / "run"
    process = start(workdir)
    wait_for_step(workdir, 8)
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    if not (workdir / "checkpoints" / str(STEPS)).exists():
        assert process.returncode == code, output
        assert f"{number.name}: saved step" in output
        # Between two log lines as a rule: the open window is in the checkpoint.
    assert "Traceback" not in output
    finish(workdir)
    assert record(workdir) == record(uninterrupted)
    assert final_bytes(workdir) == final_bytes(uninterrupted)


def test_a_finished_run_stays_as_it_is(uninterrupted):
    before = (uninterrupted / "metrics.jsonl").read_text()
    finish(uninterrupted)
    assert (uninterrupted / "metrics.jsonl").read_text() == before
    assert len(read_starts(uninterrupted)) == 1


@pytest.mark.slow
def test_profile_is_written_and_readable(tmp_path):
    import jax

    flags = ("--config.profile.first_step=2", "--config.profile.steps=2")
    short = ("--config.epochs=0.03", "--config.evals={}")
    output = finish(tmp_path / "run", *short, *flags)
    assert re.search(r"step 4/\d+: loss [\d.]+, \d+ pairs/s, \d+ ms a step, \d", output)
    (trace,) = (tmp_path / "run" / "profile").rglob("*.xplane.pb")
    data = jax.profiler.ProfileData.from_file(str(trace))
    names = {e.name for p in data.planes for line in p.lines for e in line.events}
    assert "train" in names


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    process = start(
        tmp_path / "run",
        "--config.optimizer.name=sgd",
        "--config.optimizer.learning_rate=1e30",
        # An evaluation is due before the first line: it gets no such network.
        "--config.log_every=50",
        f"--config.evals.knn.every_epochs={5 / 226}",
    )
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 1, output
    assert "in step" in output and "Likely causes" in output
    assert "Traceback" not in output
