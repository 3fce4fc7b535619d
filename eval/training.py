"""Open and check all that a pre-training needs, before a device works."""

import logging
import pathlib
from typing import NamedTuple

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from eval.during import make_evaluations
from input_pipeline.pairs.training import TrainingPairs, open_pairs
from sp_jax import validate
from sp_jax.errors import UserError
from sp_jax.methods import RunSize
from sp_jax.recipe import Recipe, make_recipe
from sp_jax.train import loggers
from sp_jax.train.evaluation import Evaluation
from sp_jax.train.initial import Start, open_start
from sp_jax.train.trace import check_profile


class Training(NamedTuple):
    """All parts of a training: pairs, length, recipe, evaluations and first weights."""

    pairs: TrainingPairs
    run_size: RunSize
    recipe: Recipe
    evaluations: list[Evaluation]
    start: Start


def open_training(config: ConfigDict, workdir: pathlib.Path, devices: int) -> Training:
    """Open images, pairs, evaluations and first weights of a config, and build its recipe.

    Args:
        config: a complete config.
        workdir: the run's folder, where results will be written.
        devices: number of devices that the run will have.

    Raises:
        UserError: the config or the data do not fit.
    """
    plain = config.to_dict()
    validate.check_training(plain)
    loggers.check(plain["loggers"])
    chunks = config.model.get("chunks", 1)
    validate.check_devices(config.batch_size, devices, chunks, config.fsdp)
    pairs = open_pairs(config)
    run_size = _run_size(config, pairs)
    recipe = validate.or_user_error(make_recipe, plain, run_size)

    def start_optimizer(key: jax.Array) -> optax.OptState:
        return recipe.tx.init(recipe.init(key)[0])  # a parameter may have no rule

    validate.or_user_error(jax.eval_shape, start_optimizer, jax.random.key(0))
    if recipe.method.needs_labels and np.all(pairs.table.label < 0):
        raise UserError(
            f"{config.method} learns from labels, but no pair has one: use another method, "
            "or images whose classes are known (docs/data.md)."
        )
    if config.image_size > config.data.image_size:
        logging.warning(
            f"Images are stored at {config.data.image_size} px, and enlarged to views of "
            f"{config.image_size} px: set config.data.image_size={config.image_size}, if "
            "yours are larger."
        )
    evaluations = make_evaluations(config, recipe, workdir, run_size.steps_per_epoch)
    start = open_start(plain, recipe, workdir)
    return Training(pairs, run_size, recipe, evaluations, start)


def _run_size(config: ConfigDict, pairs: TrainingPairs) -> RunSize:
    """The length of the run in steps."""
    per_epoch = pairs.sampler.steps_per_epoch
    total_steps = max(1, round(config.epochs * per_epoch))
    if total_steps >= 2**31:
        raise UserError(
            f"config.epochs={config.epochs:g} makes {total_steps} steps, which is too many: "
            "use fewer."
        )
    check_profile(config.profile, total_steps)
    schedule = config.data.semantic_schedule
    if schedule and round(schedule[-1][0] * per_epoch) >= total_steps:
        raise UserError(
            f"config.data.semantic_schedule={tuple(schedule)}: epoch {schedule[-1][0]:g} is "
            f"not before the end of the run, config.epochs={config.epochs:g}: leave it out, "
            "or train longer."
        )
    return RunSize(total_steps, per_epoch, config.batch_size, len(pairs.shown))
