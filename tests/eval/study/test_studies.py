"""The :quick form of every study, with budgets of a step or two: the real programs."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests.eval.study.test_plan import NAMES

pytestmark = pytest.mark.slow

PROBES = ("probe_category", "probe_subcategory")
PROBE = {"epochs": 1, "learning_rates": (0.1,), "weight_decays": (0.01,)}
TINY = ("--study.seeds=(0,)", "--study.changes.epochs=0.05")
TINY += ("--study.changes.optimizer.warmup_epochs=0.0",)
TINY += (f"--study.changes.evals={dict.fromkeys(PROBES, PROBE)}",)
# The arms to make, and what else has to be short.
ARMS = {
    "augmentation": ("AP_crop_only",),
    "bootstrap": ("AP",),
    "detection": ("SP", "random"),
    "epochs": ("SP_3",),
    "invariance": ("SP", "AP"),
    "pair_sources": ("AP", "mined_levels"),
    "pairs_per_image": ("SP_2",),
    "samples": ("AP_1",),
    "tiny_imagenet": ("SP",),
    "transfer": ("simclr_SP",),
    "vit": ("SP",),
}
SMALL = {"sizes": ((72, 96),), "test_size": (72, 96)}
MORE = {
    "detection": (
        "--study.evaluations.boxes.total_steps=2",
        f"--study.evaluations.boxes.data={SMALL}",
    ),
    "epochs": ("--study.arms.SP_3.changes.epochs=0.05",),
    "invariance": ("--study.evaluations.invariance.images=64",),
    "pair_sources": ("--study.arms.mined_levels.changes.epochs=0.1",),
    "pairs_per_image": (
        "--study.arms.SP_2.changes.epochs=0.05",
        "--study.arms.SP_2.changes.optimizer.warmup_epochs=0.0",
    ),
}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """All studies share their runs."""
    return tmp_path_factory.mktemp("studies")


@pytest.mark.parametrize("name", NAMES)
def test_quick(name, workdir):
    arms = ARMS[name]
    words = (f"--study=configs/studies/{name}.py:quick", f"--workdir={workdir}")
    words += (f"--arms={','.join(arms)}", *TINY, *MORE.get(name, ()))
    # One device: the programs of eight take longer to compile.
    environment = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    result = subprocess.run(
        [sys.executable, "-m", "eval.study", *words],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    page = pathlib.Path(re.findall(r"^The page: (.+)$", result.stdout, re.M)[0])
    # Only the arms that were asked for, under a name of the changes.
    assert re.fullmatch(f"{name}_quick_[0-9a-f]{{8}}", page.parent.name)
    assert f"{len(arms)} of {len(arms)} runs are complete" in page.read_text()
    assert (page.parent / "curves.png").is_file()
    if name != "detection":  # it has an arm that begins at random
        assert "untrained," in (page.parent / "study.csv").read_text()
