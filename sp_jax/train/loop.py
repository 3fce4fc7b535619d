"""A run in reading order: restore, step, log, evaluate, save, stop."""

import contextlib
import logging
import math
import pathlib
import signal
import time
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from sp_jax.errors import TerminatedError
from sp_jax.methods import RunSize
from sp_jax.recipe import Recipe
from sp_jax.train.banks import fill_banks
from sp_jax.train.checkpoint import Checkpoints
from sp_jax.train.evaluation import Evaluation, evaluate
from sp_jax.train.feed import ResidentFeed, StreamedFeed
from sp_jax.train.log import RunLog, write_parameters
from sp_jax.train.starts import note_start
from sp_jax.train.step import TrainState
from sp_jax.train.stop import StopSignals
from sp_jax.train.trace import Trace


def fit(
    config: ConfigDict,
    workdir: pathlib.Path,
    run_size: RunSize,
    recipe: Recipe,
    state: TrainState,
    feed: StreamedFeed | ResidentFeed,
    evaluations: Sequence[Evaluation],
    mesh: Mesh,
    meta: dict[str, Any],
) -> None:
    """Train to the end, from the newest checkpoint of workdir if there is one.

    Of the config `log_every`, `loggers`, `checkpoint` and `profile` are read. Each checkpoint
    gets `meta`, each logger the config in it.

    Raises:
        NonFiniteError: a loss was not finite. The last good checkpoint remains.
        KeyboardInterrupt: Ctrl-C ended the run: the evaluations that were due are done, and
            the step is saved.
        TerminatedError: SIGTERM ended the run before its last step, in the same way.
        UserError: a checkpoint cannot be read or written.
    """
    total, stop = run_size.total_steps, None
    log_every = config.log_every
    saved_every = config.checkpoint.every, config.checkpoint.keep_every
    checkpoints = Checkpoints(
        workdir / "checkpoints",
        keep_last=config.checkpoint.keep_last,
        keep_every=config.checkpoint.keep_every,
    )
    window = []
    if restored := checkpoints.restore(state):
        state, window = restored[0], restored[1]["window"]
    step = int(state.step)
    if step:
        logging.info("Resuming from step %d of %s.", step, workdir)
    checkpoints.check_space(state)
    if jax.process_index() == 0:
        write_parameters(workdir / "parameters.txt", state.params)
        if step < total:
            note_start(workdir, step)
    told = config.loggers, meta["config"]
    log = RunLog(workdir, run_size, len(recipe.views), step, window, mesh, *told)
    profile = config.profile
    trace = Trace(workdir, profile.first_step, profile.steps, step, total)

    with (
        contextlib.closing(log),  # last: a logger may take its time
        StopSignals() as signals,  # until the last checkpoint is written
        checkpoints,
        contextlib.closing(trace),
        contextlib.closing(feed),
    ):
        if step == 0:
            evaluate(evaluations, state, 0, total, log)
            state = fill_banks(recipe, state, feed, mesh, run_size, log)
        feed.open(step)
        log.expect_compilation()
        while step < total:
            if trace.begins(step):
                jax.block_until_ready(state)
                with log.off_the_clock():
                    trace.begin()
            # One call may make several steps, but none beyond what happens next.
            next_event = min(
                total,
                trace.next_pause(step),
                _after(step, log_every),
                *(_after(step, every) for every in saved_every),
                *(_after(step, e.every_steps) for e in evaluations),
            )
            called = time.perf_counter()
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                made = feed.advance(state, next_event - step)
            state, step = made.state, step + made.count
            log.add(made, step, time.perf_counter() - called)
            if trace.ends(step):
                jax.block_until_ready(state)
                with log.off_the_clock():
                    log.say(trace.end())
            if step % log_every == 0 or step == total:
                log.write_line(step, made.features)
            save = step == total or any(_is_due(step, every) for every in saved_every)
            if save or any(_is_due(step, e.every_steps) for e in evaluations):
                # The steps that are still at work are on the clock. Numbers that are not
                # finite raise here, and are never evaluated or saved.
                log.fetch_window(step)
            with log.off_the_clock():
                evaluate(evaluations, state, step, total, log)
                stop = signals.asked()
                if stop or save:
                    lines = log.fetch_window(step)
                    checkpoints.save(step, state, {**meta, "window": lines})
            if stop and step < total:
                log.say(
                    f"{stop.name}: saved step {step}; the same command goes on from it."
                )
                break
    if stop is signal.SIGINT:
        raise KeyboardInterrupt
    if stop and step < total:
        raise TerminatedError


def _is_due(step: int, every: int) -> bool:
    """Whether a step is a multiple of an interval; 0 has none."""
    return every > 0 and step % every == 0


def _after(step: int, every: int) -> float:
    """The next multiple of an interval; 0 has none."""
    return (step // every + 1) * every if every else math.inf
