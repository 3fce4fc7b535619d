"""The :quick form of every study, with budgets of a step or two: the real programs."""

import re
import subprocess
import sys

import pytest

from eval.study import plan
from tests.eval.study.test_plan import NAMES, study_of

pytestmark = pytest.mark.slow

TINY = (
    "--study.changes.epochs=0.05",
    "--study.changes.optimizer.warmup_epochs=0.0",
    "--study.seeds=(0,)",
)
# The arms to make; of the others the first and the last.
ARMS = {"pair_sources": "AP,mined", "detection": "SP,random"}
# Detection has lengths of its own.
MORE = {"detection": ("--study.evaluations.boxes.total_steps=2",)}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """All studies share their runs."""
    return tmp_path_factory.mktemp("studies")


@pytest.mark.parametrize("name", NAMES)
def test_quick(name, workdir):
    arms = list(plan.read_study(study_of(name, "quick"))["arms"])
    arms = ARMS.get(name, f"{arms[0]},{arms[-1]}")
    words = (f"--study=configs/studies/{name}.py:quick", f"--workdir={workdir}")
    words += (f"--arms={arms}", *TINY, *MORE.get(name, ()))
    command = [sys.executable, "-m", "eval.study", *words]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(re.findall(": complete", result.stdout)) <= 2
    text = (workdir / f"{name}_quick/study.html").read_text()
    assert re.search(r"[2-9] of \d+ runs are complete", text)
    assert "one seed" in text or "no runs" in text
    again = subprocess.run(command, capture_output=True, text=True)
    assert ", 0 of them to do" in again.stdout
