"""What a run tells while it trains: its record, its progress bar, its speed."""

import contextlib
import logging
import math
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from clu import parameter_overview
from jax.sharding import Mesh
from tqdm import tqdm

from sp_jax.errors import NonFiniteError
from sp_jax.methods import RunSize
from sp_jax.train.feed import Advance
from sp_jax.train.health import make_health
from sp_jax.train.writer import MetricsWriter, from_json, to_json

# How many calls the host may run ahead of the device. It bounds the memory of batches
# that wait, and is far more than is needed to keep the device busy.
MAX_CALLS_AHEAD = 8


class RunLog:
    """Collects the metrics of steps, and makes a line of their means.

    Only the first of several processes writes and prints.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        run_size: RunSize,
        images_per_step: int,
        resume_step: int,
        window: list[dict[str, Any]],
        mesh: Mesh,
    ):
        """Begin, or go on with the `window` that `fetch_window` gave at `resume_step`."""
        self._run_size, self._images_per_step = run_size, images_per_step
        # Steps since the last line: on the device, or numbers of a checkpoint.
        self._window: list[Mapping[str, Any]] = [from_json(line) for line in window]
        self._health = make_health(mesh)
        self._compiled = set()  # the programs that were used before
        self._clock, self._clock_step = 0.0, resume_step
        self._first = jax.process_index() == 0
        self._writer = MetricsWriter(workdir, resume_step) if self._first else None
        self._bar = tqdm(
            total=run_size.total_steps,
            initial=resume_step,
            unit="step",
            desc=workdir.name,
            disable=None if self._first else True,
            dynamic_ncols=True,
        )

    def add(self, made: Advance, step: int) -> None:
        """Note the metrics of the steps that led to `step`; they stay on the device."""
        self._window.append(made.metrics)
        if len(self._window) > MAX_CALLS_AHEAD:
            jax.block_until_ready(self._window[-1 - MAX_CALLS_AHEAD])
        self._bar.update(made.count)
        if made.program not in self._compiled:  # that took longer than the steps
            jax.block_until_ready(made.state)
            self._compiled.add(made.program)
            self._clock, self._clock_step = time.perf_counter(), step

    def fetch_window(self, step: int) -> list[dict[str, float | None]]:
        """The steps since the last line, on the host and as JSON knows them.

        Raises:
            NonFiniteError: a loss or a gradient is not finite.
        """
        # An entry of a call has one number, or one a step of the call.
        self._window = [
            dict(zip(call, map(float, values), strict=True))
            for call in jax.device_get(self._window)
            for values in zip(*map(np.atleast_1d, call.values()), strict=True)
        ]
        for number, line in enumerate(self._window, step - len(self._window) + 1):
            for name in ("loss", "grad_norm"):
                if not math.isfinite(line[name]):
                    raise NonFiniteError(_explain_non_finite(name, number, line))
        return [to_json(line) for line in self._window]

    def write_line(self, step: int, features: jax.Array | None) -> None:
        """Write the window's means and the health of the last features; begin a new window."""
        self.fetch_window(step)
        steps, self._window = self._window, []
        line = {k: math.fsum(s[k] for s in steps) / len(steps) for k in steps[-1]}
        line["learning_rate"] = steps[-1]["learning_rate"]
        if features is not None:
            line |= {k: float(v) for k, v in self._health(features).items()}
        if step > self._clock_step:
            seconds = time.perf_counter() - self._clock
            line["step_ms"] = seconds / (step - self._clock_step) * 1e3
            line["images_per_sec"] = self._images_per_step / line["step_ms"] * 1e3
        self.write(step, line)
        self._show(step, line)
        self._clock, self._clock_step = time.perf_counter(), step

    @contextlib.contextmanager
    def off_the_clock(self) -> Iterator[None]:
        """What is done meanwhile is not a part of a step's time."""
        before = time.perf_counter()
        yield
        self._clock += time.perf_counter() - before

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Append numbers to the record."""
        if self._writer:
            epoch = round(step / self._run_size.steps_per_epoch, 4)
            self._writer.write(
                {"step": step, "epoch": epoch, "time": time.time(), **numbers}
            )

    def say(self, text: str) -> None:
        """Print a line above the progress bar."""
        if self._first and text:
            self._bar.write(text)

    def _show(self, step: int, line: Mapping[str, float]) -> None:
        speed = {
            "loss": f"{line['loss']:.3f}",
            "img/s": f"{line.get('images_per_sec', 0):.0f}",
            "ms": f"{line.get('step_ms', 0):.0f}",
        }
        self._bar.set_postfix(speed)
        if self._bar.disable and self._first:  # no terminal: a line a log step
            total = self._run_size.total_steps
            seconds = (total - step) * line.get("step_ms", 0) / 1e3
            shown = ", ".join(f"{k} {v}" for k, v in speed.items())
            print(f"step {step}/{total}: {shown}, {seconds:.0f} s left")

    def close(self) -> None:
        """End the bar, and flush the record."""
        self._bar.close()
        if self._writer:
            self._writer.close()


def _explain_non_finite(name: str, step: int, line: Mapping[str, float]) -> str:
    return (
        f"The {name} became {line[name]} in step {step} (learning rate "
        f"{line['learning_rate']:.3g}). Likely causes: the learning rate is too high for "
        "the batch (lower config.optimizer.learning_rate), the warm-up is too short (raise "
        "config.optimizer.warmup_epochs), or the temperature is too low. Start the changed "
        "recipe in a new workdir."
    )


def write_parameters(path: pathlib.Path, params: Any) -> None:
    """Write the table of the parameters, and log their number."""
    table = parameter_overview.get_parameter_overview(params, include_stats=False)
    path.write_text(table + "\n", encoding="utf-8")
    count = parameter_overview.count_parameters(params)
    logging.info("Parameters: %s (%s).", f"{count:,}", path)
