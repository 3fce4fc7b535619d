"""Training on labelled images: what fine-tuning and the papers' linear probe share."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from eval.task import Task
from sp_jax.augment import Augment
from sp_jax.backbone import Backbone
from sp_jax.errors import UserError
from sp_jax.features import Extractor, map_rows


def backbone_of(extractor: Extractor, what: str) -> Backbone:
    """The backbone of an extractor.

    Args:
      extractor: of the features.
      what: needs it, for the error.

    Raises:
      UserError: it has none, but a mere function of images.
    """
    if not isinstance(extractor.backbone, Backbone):
        raise UserError(f"{what} needs a backbone, not a function of images.")
    return extractor.backbone


def whole_batch(count: int, batch_size: int, devices: int) -> int:
    """Images a step: of `count` at most, and the same number on each device.

    Raises:
      UserError: there are fewer images than devices.
    """
    most = min(count, batch_size)
    if most < devices:
        raise UserError(
            f"A batch of {most} images cannot be split over {devices} devices: raise "
            "batch_size, or use fewer devices."
        )
    return most // devices * devices


def crop_and_flip(backbone: Backbone, smallest: float) -> Augment:
    """Random crops and flips only, in the size and colours of the pre-training.

    Args:
      backbone: which was trained so.
      smallest: area of a crop, as a share of the image's.
    """
    return Augment(
        size=backbone.size,
        crop_scale=(smallest, 1.0),
        **{"jitter": 0, "grayscale": 0, "blur": 0},
        mean=backbone.mean,
        std=backbone.std,
    )


def train(
    task: Task,
    step: Callable[..., tuple[Any, jax.Array]],
    state: Any,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    diverged: str,
) -> Any:
    """Run a step over the training images, in a new order each epoch.

    Args:
      task: images and labels.
      step: (state, number of the step, uint8 [B, S, S, 3], int32 [B]) -> (state, loss).
      state: of the first step.
      epochs: passes over the images; the remainder of one, which fills no batch, is dropped.
      batch_size: images a step.
      seed: of the order.
      diverged: the error's sentence, with {epoch}.

    Returns:
      The last state.

    Raises:
      UserError: a loss is NaN or infinite.
    """
    rng = np.random.default_rng(seed)
    steps = len(task.train_rows) // batch_size
    for epoch in range(epochs):
        order = rng.permutation(len(task.train_rows))[: steps * batch_size]
        for i, batch in enumerate(order.reshape(steps, batch_size)):
            images = task.train.read(task.train_rows[batch])
            number = np.int32(epoch * steps + i)
            state, loss = step(state, number, images, task.train_labels[batch])
        # Once an epoch: the device is not waited for in between.
        if not np.isfinite(loss):
            raise UserError(diverged.format(epoch=epoch + 1))
    return state


def test_accuracy(
    task: Task, classify: Callable[[np.ndarray], jax.Array], batch_size: int
) -> float:
    """The share of the test images whose class is right.

    Args:
      task: images and labels.
      classify: uint8 [batch_size, S, S, 3] -> int32 [batch_size].
      batch_size: images a call.
    """
    predicted = map_rows(
        lambda rows: classify(task.test.read(task.test_rows[rows])),
        len(task.test_rows),
        batch_size,
    )
    return float(np.mean(predicted == task.test_labels))
