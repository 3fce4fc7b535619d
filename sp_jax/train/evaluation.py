"""What is measured while a run trains, and when."""

import dataclasses
import time
from collections.abc import Callable, Sequence

from sp_jax.train.log import RunLog
from sp_jax.train.step import TrainState


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Something to measure during the run.

    Attributes:
        measure: `measure(state, step) -> metrics`, called with the state of a finished step.
        every_steps: how often; 0 for the end of the run only.
        headline: the metrics that are printed; the others are in the record only.
    """

    measure: Callable[[TrainState, int], dict[str, float]]
    every_steps: int
    headline: Sequence[str]


def evaluate(
    evaluations: Sequence[Evaluation],
    state: TrainState,
    step: int,
    total_steps: int,
    log: RunLog,
) -> None:
    """Measure what is due after `step` steps, and log it; at 0 that is the random network."""
    for evaluation in evaluations:
        every = evaluation.every_steps
        if step != total_steps and (every == 0 or step % every):
            continue
        started = time.perf_counter()
        results = evaluation.measure(state, step)
        log.write(step, results)
        headline = evaluation.headline
        shown = [f"{name} {x:.4g}" for name, x in results.items() if name in headline]
        seconds = time.perf_counter() - started
        log.say(f"step {step}: {', '.join(shown)} ({seconds:.1f} s)")
