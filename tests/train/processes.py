"""Real runs of `python -m sp_jax.main` on the tiny config, and what they wrote."""

import json
import os
import pathlib
import subprocess
import sys
import time

from input_pipeline.stores import open_source, records

ROOT = pathlib.Path(__file__).parents[2]
STEPS = 23  # of the tiny config
TIMED = ("time", "step_ms", "pairs_per_sec", "images_per_sec")


def coded_drawings(folder):
    """Flags of a training whose images are JPEG files, written into a folder."""
    coding = records.Coding(shorter_side=48, quality=90)
    records.write(open_source("emoji"), folder, 0, "crop", 0, 16384, coding)
    return (f"--config.data.store=array_record:{folder}",)


def start(workdir, *flags, devices=1):
    """Start a run on some devices."""
    command = [sys.executable, "-m", "sp_jax.main", "--config=tests/train/tiny.py"]
    xla_flags = (
        f"--xla_force_host_platform_device_count={devices} "
        "--xla_backend_optimization_level=0"  # see tests/conftest.py
    )
    return subprocess.Popen(
        [*command, f"--workdir={workdir}", *flags],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": xla_flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(workdir, *flags):
    """Run to the end; returns what was printed."""
    process = start(workdir, *flags)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def wait_until(condition):
    """Wait up to three minutes."""
    for _ in range(9000):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it never happened")


def wait_for_step(workdir, step):
    """Wait until metrics.jsonl holds the step."""
    wait_until(lambda: any(line["step"] >= step for line in read_lines(workdir)))


def read_lines(workdir):
    """The complete lines of metrics.jsonl."""
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return []
    complete = path.read_text().rpartition("\n")[0]
    return [json.loads(line) for line in complete.splitlines()]


def record(workdir):
    """The lines without what depends on the clock."""
    return [
        {k: v for k, v in line.items() if k not in TIMED}
        for line in read_lines(workdir)
    ]
