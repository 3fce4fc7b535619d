"""What a run reports while it trains: its record, its progress, its speed."""

import contextlib
import logging
import math
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from clu import parameter_overview
from jax.sharding import Mesh

from sp_jax import progress
from sp_jax.errors import NonFiniteError
from sp_jax.methods import RunSize
from sp_jax.train import loggers
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
        views: int,
        resume_step: int,
        window: list[dict[str, Any]],
        mesh: Mesh,
        logger_names: Sequence[str],
        config: Mapping[str, Any],
    ):
        """Begin, or go on with the `window` that `fetch_window` gave at `resume_step`.

        Of each pair there are so many views; with 0 a batch has images, and no pairs. The
        named loggers get the config.
        """
        self._run_size, self._views = run_size, views
        # Steps since the last line: on the device, or numbers of a checkpoint.
        self._window: list[Mapping[str, Any]] = [from_json(line) for line in window]
        self._health = make_health(mesh)
        self._compiled = set()  # the programs that were used before
        self._clock, self._clock_step = 0.0, resume_step
        self._first = jax.process_index() == 0
        self._writer = MetricsWriter(workdir, resume_step) if self._first else None
        self._loggers = []
        if self._writer:
            record = [(line["step"], _scalars(line)) for line in self._writer.kept]
            self._loggers = loggers.start(logger_names, workdir, config, record)
        self._closing = contextlib.ExitStack()
        self._shown = self._closing.enter_context(
            progress.show(workdir.name, run_size.total_steps, "steps", resume_step)
        )

    def expect_compilation(self) -> None:
        """Show that the step is compiled now, until `add` is called."""
        self._shown.note = "compiling the step"

    def add(self, made: Advance, step: int, seconds: float) -> None:
        """Note the metrics of the steps that led to `step`; they stay on the device.

        To make them, or to begin to, took so many seconds: compilation, if they are the first.
        """
        self._window.append(made.metrics)
        if len(self._window) > MAX_CALLS_AHEAD:
            jax.block_until_ready(self._window[-1 - MAX_CALLS_AHEAD])
        self._shown.update(made.count)
        if made.program not in self._compiled:  # that took longer than the steps
            if seconds > 1:
                self.say(f"step {step}: the step was compiled in {seconds:.1f} s")
            self._shown.note = ""
            jax.block_until_ready(made.state)
            self._compiled.add(made.program)
            self._clock, self._clock_step = time.perf_counter(), step

    def fetch_window(self, step: int) -> list[dict[str, float | None]]:
        """The steps since the last line, on the host and as JSON knows them.

        Raises:
            NonFiniteError: a loss or a gradient is not finite.
        """
        # An entry of a call has one number, or one for each step of the call.
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
            per_second = self._run_size.batch_size / line["step_ms"] * 1e3
            if self._views:
                line["pairs_per_sec"] = per_second
            # Every view is an image.
            line["images_per_sec"] = per_second * max(1, self._views)
        self.write(step, line)
        self._show(step, line)
        self._clock, self._clock_step = time.perf_counter(), step

    @contextlib.contextmanager
    def off_the_clock(self) -> Iterator[None]:
        """A context whose time does not count as time of a step."""
        before = time.perf_counter()
        yield
        self._clock += time.perf_counter() - before

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Append numbers to the record, and give them to the loggers."""
        if self._writer:
            epoch = round(step / self._run_size.steps_per_epoch, 4)
            line = {"step": step, "epoch": epoch, "time": time.time(), **numbers}
            self._writer.write(line)
            for logger in self._loggers:
                logger.write_scalars(step, _scalars(line))

    def say(self, text: str) -> None:
        """Print a line above the progress."""
        if self._first and text:
            progress.say(text)

    def _show(self, step: int, line: Mapping[str, float]) -> None:
        shown = f"loss {line['loss']:.3f}"
        if "step_ms" in line:
            unit = "pairs" if self._views else "images"
            speed = line[f"{unit}_per_sec"]
            shown += f", {speed:,.0f} {unit}/s, {line['step_ms']:.0f} ms a step"
        self._shown.note = shown
        if not progress.on_terminal():  # A line for each log step.
            total = self._run_size.total_steps
            seconds = (total - step) * line.get("step_ms", 0) / 1e3
            self.say(f"step {step}/{total}: {shown}, {progress.clock(seconds)} left")

    def close(self) -> None:
        """Stop showing progress, and close the record and the loggers."""
        self._closing.close()
        if self._writer:
            self._writer.close()
        for logger in self._loggers:
            logger.close()


def _scalars(line: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in line.items() if name != "step"}


def _explain_non_finite(name: str, step: int, line: Mapping[str, float]) -> str:
    if step == 1:
        return (
            f"The {name} became {line[name]} in step 1, before any parameter changed. So the "
            "method's loss, its gradient or the images are at fault: the environment variable "
            "JAX_DEBUG_NANS=True finds the operation."
        )
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
