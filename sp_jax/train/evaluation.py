"""What is measured while a run trains, and when."""

import dataclasses
import time
from collections.abc import Callable, Sequence

from sp_jax.errors import UserError
from sp_jax.train.log import RunLog
from sp_jax.train.step import TrainState


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Something to measure during the run.

    Attributes:
        measure: `measure(state, step) -> metrics`, called with the state of a finished step.
        every_steps: how often; 0 for the end of the run only.
        headline: the metrics that are printed; the others are in the record only.
        untrained: whether it is measured before the first step whatever `every_steps` is.
    """

    measure: Callable[[TrainState, int], dict[str, float]]
    every_steps: int
    headline: Sequence[str]
    untrained: bool = False


def evaluate(
    evaluations: Sequence[Evaluation],
    state: TrainState,
    step: int,
    total_steps: int,
    log: RunLog,
) -> None:
    """Measure what is due after `step` steps, and log it; step 0 is the untrained network.

    Numbers of step 0 that serve only as a baseline stay out of the record.
    """
    for evaluation in evaluations:
        every = evaluation.every_steps
        due = step == total_steps or (every > 0 and step % every == 0)
        if not due and not (step == 0 and evaluation.untrained):
            continue
        started = time.perf_counter()
        try:
            results = evaluation.measure(state, step)
        except UserError as error:  # a probe that diverges on random features, say
            if due:
                raise
            log.say(f"step {step}: the untrained network has no result: {error}")
            continue
        if due:
            log.write(step, results)
        headline = evaluation.headline
        shown = [f"{name} {x:.4g}" for name, x in results.items() if name in headline]
        seconds = time.perf_counter() - started
        log.say(f"step {step}: {', '.join(shown)} ({seconds:.1f} s)")
