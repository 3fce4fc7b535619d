"""The evaluators of a config, ready to be called while it trains."""

import functools
import pathlib
from typing import Any

import jax

import eval as evaluators
from eval.evaluator import Evaluator
from eval.results import identify, write_result
from eval.task import images_as
from sp_jax.errors import UserError
from sp_jax.features import Extractor
from sp_jax.recipe import Recipe
from sp_jax.train.evaluation import Evaluation
from sp_jax.train.step import TrainState


def make_evaluations(
    config: Any, recipe: Recipe, workdir: pathlib.Path, steps_per_epoch: int
) -> list[Evaluation]:
    """Open every evaluator's data now, so that a mistake shows before training.

    Args:
      config: of a training; its `evals`, and how its `data` prepares images.
      recipe: what is trained.
      workdir: the run's folder, where results are written.
      steps_per_epoch: the unit of the intervals.

    Raises:
      UserError: an evaluator is unknown, or its options or data do not fit.
    """
    shared: dict[int, Extractor] = {}

    def measure(
        name: str, evaluate: Evaluator, state: TrainState, step: int
    ) -> dict[str, float]:
        if step not in shared:  # All evaluators of a step share its features.
            shared.clear()
            info = {"step": step, "config": config.to_dict()}
            backbone = recipe.freeze(state.params, state.method_state, **info)
            shared[step] = Extractor(backbone)
        result = evaluate(shared[step], step)
        about = identify(evaluate, shared[step], step)
        if jax.process_index() == 0:
            own = {"training": True, "untrained": step == 0}
            write_result(workdir, name, result, **own, **about)
        return {f"{name}/{key}": value for key, value in result.items()}

    evaluations = []
    for name, options in config.evals.items():
        options = images_as(config.data) | options.to_dict()
        kind = options.pop("type")
        every = options.pop("every_epochs", 0) * steps_per_epoch
        every_steps = max(1, round(every)) if every else 0
        try:
            evaluate = evaluators.make(kind, options)
        except UserError as error:
            raise UserError(f"config.evals.{name}: {error}") from error
        shown = [f"{name}/{number.name}" for number in evaluate.headline]
        call = functools.partial(measure, name, evaluate)
        evaluations.append(Evaluation(call, every_steps, shown, untrained=True))
    return evaluations
