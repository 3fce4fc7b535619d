"""The run in reading order: restore, step, log, evaluate, save."""

import contextlib
import dataclasses
import logging
import math
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from clu import parameter_overview
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from tqdm import tqdm

from sp_jax.sharding import replicated
from sp_jax.train.checkpoint import Checkpoints
from sp_jax.train.feed import Resident, Streamed
from sp_jax.train.step import TrainState, make_health_fn
from sp_jax.train.writer import MetricsWriter, from_json, to_json

# How many calls the host may run ahead of the device. It bounds the memory of batches
# that wait, and is far more than is needed to keep the device busy.
MAX_CALLS_AHEAD = 8


class NonFiniteLossError(RuntimeError):
    """The loss became infinite or not a number. The message says what to do."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Something to measure during the run.

    Attributes:
        run: `run(state, step) -> metrics`, called with the state of a finished step.
        every_steps: how often; 0 for the end of the run only.
    """

    run: Callable[[TrainState, int], dict[str, float]]
    every_steps: int

    def due(self, step: int, total_steps: int) -> bool:
        """Whether to run after `step` steps; 0 measures the random network."""
        if step == total_steps:
            return True
        return self.every_steps > 0 and step % self.every_steps == 0


@dataclasses.dataclass(frozen=True)
class Settings:
    """Lengths and intervals of a run, in steps.

    Attributes:
        total_steps: length of the run.
        steps_per_epoch: only to print epochs.
        images_per_step: views in a global batch, only to print images/s.
        log_every: interval of metrics.jsonl.
        save_every: interval of checkpoints.
        keep_last: newest checkpoints to keep.
        keep_every: also keep multiples of it; 0 for none.
        profile_first_step: first step of the profiler's trace.
        profile_steps: its length; 0 for no trace.
    """

    total_steps: int
    steps_per_epoch: int
    images_per_step: int
    log_every: int
    save_every: int
    keep_last: int
    keep_every: int
    profile_first_step: int = 0
    profile_steps: int = 0

    @classmethod
    def from_config(cls, config: Any, **lengths: int) -> "Settings":
        """The intervals from a config; the lengths are given."""
        return cls(
            log_every=config.log_every,
            save_every=config.checkpoint.every,
            keep_last=config.checkpoint.keep_last,
            keep_every=config.checkpoint.keep_every,
            profile_first_step=config.profile.first_step,
            profile_steps=config.profile.steps,
            **lengths,
        )


def fit(
    workdir: pathlib.Path,
    state: TrainState,
    feed: Streamed | Resident,
    evaluations: Sequence[Evaluation],
    mesh: Mesh,
    settings: Settings,
    meta: dict[str, Any],
    observe: Callable | None = None,
) -> TrainState:
    """Train to the end, from the newest checkpoint of workdir if there is one.

    Args:
        workdir: the run's folder.
        state: the state of step 0.
        feed: the compiled step and its data.
        evaluations: what to measure when.
        mesh: the devices.
        settings: lengths and intervals.
        meta: saved with each checkpoint: config, fingerprints, versions.
        observe: from `make_observe_step`; called with the batches of the first epoch
            before step 0.

    Returns:
        The last state; an earlier one if SIGTERM ended the run.

    Raises:
        NonFiniteLossError: a loss was not finite. The last good checkpoint remains.
        KeyboardInterrupt: Ctrl-C ended the run, after the step it was at was saved.
        UserError: a checkpoint cannot be read or written.
    """
    checkpoints = Checkpoints(
        workdir / "checkpoints",
        keep_last=settings.keep_last,
        keep_every=settings.keep_every,
    )
    # Steps since the last log line: on the device, or numbers from a checkpoint.
    window: list[dict[str, Any]] = []
    if restored := checkpoints.restore(state):
        state, saved_meta = restored
        window = [from_json(line) for line in saved_meta["window"]]
    first_step = int(state.step)
    if first_step:
        logging.info("Resuming from step %d of %s.", first_step, workdir)
    first = jax.process_index() == 0
    checkpoints.check_room(state)
    if first:
        _write_parameters(workdir / "parameters.txt", state.params)
    writer = MetricsWriter(workdir, first_step) if first else None

    def say(words: str) -> None:
        if first:
            bar.write(words)

    def write(step: int, metrics: dict[str, float]) -> None:
        if writer:
            epoch = round(step / settings.steps_per_epoch, 4)
            writer.write({"step": step, "epoch": epoch, "time": time.time(), **metrics})

    def fetch_window(step: int) -> None:
        """Bring the window to the host, and stop if a loss is not finite."""
        window[:] = [
            dict(zip(call, map(float, values), strict=True))
            for call in jax.device_get(window)
            for values in zip(*map(np.atleast_1d, call.values()), strict=True)
        ]
        for back, line in enumerate(reversed(window)):
            bad = [k for k in ("loss", "grad_norm") if not math.isfinite(line[k])]
            if bad and all(
                math.isfinite(earlier["loss"] + earlier["grad_norm"])
                for earlier in window[: len(window) - 1 - back]
            ):
                raise NonFiniteLossError(
                    _non_finite_message(bad[0], step - back, line, checkpoints)
                )

    def evaluate(step: int) -> None:
        for evaluation in evaluations:
            if evaluation.due(step, settings.total_steps):
                started = time.perf_counter()
                results = evaluation.run(state, step)
                write(step, results)
                # A part of a part, such as "invariance/occlusion/cosine", is in the record.
                shown = ", ".join(
                    f"{k} {v:.4g}" for k, v in results.items() if k.count("/") == 1
                )
                seconds = time.perf_counter() - started
                say(f"step {step}: {shown} ({seconds:.1f} s)")

    def save(step: int) -> None:
        fetch_window(step)  # nothing that is not finite is ever saved
        # A copy of the window: the meta data is written in the background.
        lines = [to_json(line) for line in window]
        checkpoints.save(step, state, {**meta, "window": lines})

    bar = tqdm(
        total=settings.total_steps,
        initial=first_step,
        unit="step",
        desc=workdir.name,
        disable=None if first else True,
        dynamic_ncols=True,
    )
    trace_from = max(settings.profile_first_step, first_step)
    trace_to = trace_from + settings.profile_steps
    trace_at = (trace_from, trace_to) if settings.profile_steps else ()
    # Several processes of a host would write into one file.
    trace_here = settings.profile_steps and first
    tracing = False
    health = make_health_fn(mesh)
    compiled = set()  # the programs that were used before
    calls = 0
    waits = True
    several = jax.process_count() > 1
    try:
        with _stop_signals(not several) as stop, contextlib.closing(feed):
            if first_step == 0 and settings.total_steps > 0:
                evaluate(0)
                if observe:
                    say("Showing the method one epoch before the first step.")
                    state = _observe_epoch(observe, state, feed, mesh, settings)
            feed.open(first_step)
            done, clock, clock_step = first_step, 0.0, first_step
            while done < settings.total_steps:
                if trace_here and done == trace_from:
                    jax.block_until_ready(state)
                    jax.profiler.start_trace(workdir / "profile", **trace_options())
                    tracing = True
                pause = min(
                    _after(done, settings.log_every),
                    _after(done, settings.save_every),
                    *(_after(done, e.every_steps) for e in evaluations),
                    *(at for at in trace_at if at > done),
                    settings.total_steps,
                )
                with jax.profiler.StepTraceAnnotation("train", step_num=done):
                    state, metrics, features, count, program = feed.advance(
                        state, pause - done
                    )
                window.append(metrics)
                done += count
                calls += 1
                if len(window) > MAX_CALLS_AHEAD:
                    jax.block_until_ready(window[-1 - MAX_CALLS_AHEAD])
                bar.update(count)
                if tracing and done in (trace_to, settings.total_steps):
                    jax.block_until_ready(state)
                    jax.profiler.stop_trace()
                    tracing = False
                    say(f"Wrote a profile of steps {trace_from} to {done - 1}.")
                if program not in compiled:  # that took longer than the steps
                    jax.block_until_ready(state)
                    compiled.add(program)
                    clock, clock_step = time.perf_counter(), done
                if done % settings.log_every == 0 or done == settings.total_steps:
                    fetch_window(done)
                    line = _mean(window)
                    window.clear()
                    if features is not None:
                        line |= {k: float(v) for k, v in health(features).items()}
                    if done > clock_step:
                        ms = (time.perf_counter() - clock) / (done - clock_step) * 1e3
                        line["step_ms"] = ms
                        line["images_per_sec"] = settings.images_per_step / ms * 1e3
                    write(done, line)
                    _show(bar, done, settings, line)
                    clock, clock_step = time.perf_counter(), done
                before = time.perf_counter()
                evaluate(done)
                # Several processes agree on a call after which all of them stop: on its
                # number, because they could agree on a step inside of a call.
                stopping = stop.by is not None or (
                    several and multihost_utils.reached_preemption_sync_point(calls)
                )
                last = done == settings.total_steps
                if last or stopping or done % settings.save_every == 0:
                    save(done)
                clock += time.perf_counter() - before  # not a part of a step's time
                if stopping and not last:
                    name = "SIGTERM" if stop.by is None else stop.by.name
                    say(f"{name}: saved step {done}; the same command goes on from it.")
                    break
    except Exception as error:
        # Of several processes one may be dead: nobody can wait for it.
        waits = not several or isinstance(error, NonFiniteLossError)
        raise
    finally:
        if tracing:
            jax.profiler.stop_trace()
        bar.close()
        if waits:
            checkpoints.close()
        if writer:
            writer.close()
    if stop.by is signal.SIGINT:
        raise KeyboardInterrupt
    return state


def _after(step: int, every: int) -> float:
    """The next multiple of an interval; 0 has none."""
    return (step // every + 1) * every if every else math.inf


def _write_parameters(path: pathlib.Path, params: Any) -> None:
    """Write the table of the parameters, and log their number."""
    table = parameter_overview.get_parameter_overview(params, include_stats=False)
    path.write_text(table + "\n", encoding="utf-8")
    count = parameter_overview.count_parameters(params)
    logging.info("Parameters: %s (%s).", f"{count:,}", path)


def _observe_epoch(observe, state, feed, mesh, settings) -> TrainState:
    for number, batch in enumerate(feed.first_epoch(settings.steps_per_epoch)):
        count = jax.device_put(np.int32(number), replicated(mesh))
        state = observe(state, batch, count)
        jax.block_until_ready(state.step)
    return state


def _mean(window: list[dict[str, float]]) -> dict[str, float]:
    """Means over the steps of the window; the learning rate is the last one's."""
    names = window[-1]
    line = {name: math.fsum(w[name] for w in window) / len(window) for name in names}
    line["learning_rate"] = window[-1]["learning_rate"]
    return line


def _show(bar: tqdm, step: int, settings: Settings, line: dict[str, float]) -> None:
    speed = {
        "loss": f"{line['loss']:.3f}",
        "img/s": f"{line.get('images_per_sec', 0):.0f}",
        "ms": f"{line.get('step_ms', 0):.0f}",
    }
    bar.set_postfix(speed)
    if bar.disable and jax.process_index() == 0:  # no terminal: a line a log step
        seconds = (settings.total_steps - step) * line.get("step_ms", 0) / 1e3
        shown = ", ".join(f"{k} {v}" for k, v in speed.items())
        print(f"step {step}/{settings.total_steps}: {shown}, {seconds:.0f} s left")


def _non_finite_message(
    name: str, step: int, line: dict[str, float], checkpoints: Checkpoints
) -> str:
    last = checkpoints.latest_step()
    kept = f"the last good checkpoint is {last}" if last else "no checkpoint exists yet"
    return (
        f"The {name} became {line[name]} in step {step} (learning rate "
        f"{line['learning_rate']:.3g}); {kept} ({checkpoints.directory}). Likely causes: "
        "the learning rate is too high for the batch (lower "
        "config.optimizer.learning_rate), the warm-up is too short (raise "
        "config.optimizer.warmup_epochs), or the temperature is too low. Start the "
        "changed recipe in a new workdir."
    )


def trace_options() -> dict[str, jax.profiler.ProfileOptions]:
    """Arguments of `jax.profiler.start_trace` and `trace`."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # its events are many, and hide the device's
    return {"profiler_options": options}


@dataclasses.dataclass
class _Stop:
    by: signal.Signals | None = None


@contextlib.contextmanager
def _stop_signals(catch: bool) -> Iterator[_Stop]:
    """Note SIGTERM and Ctrl-C, so that the loop can save between two steps and end.

    A second Ctrl-C ends the program at once. If not caught, the signals are left to JAX,
    which tells the other processes.
    """
    stop = _Stop()

    def handle(number, frame):
        del frame
        stop.by = signal.Signals(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            print("Ctrl-C: the step is saved next; once more ends at once.", flush=True)

    previous = {}
    # Elsewhere than in the main thread, whoever owns that handles the signals.
    if catch and threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            previous[number] = signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
