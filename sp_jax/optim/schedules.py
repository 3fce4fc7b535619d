"""Schedules: functions of the step, as optax's."""

from collections.abc import Sequence

import jax.numpy as jnp
import optax


def linear_scaling(learning_rate: float, batch_size: int) -> float:
    """Scale a learning rate given for 256 examples: `learning_rate * batch_size / 256`.

    Source: Goyal et al. 2017, https://arxiv.org/abs/1706.02677

    Example:
        >>> linear_scaling(0.3, 512)
        0.6
    """
    return learning_rate * batch_size / 256


def warmup_cosine(
    peak: float, total_steps: int, warmup_steps: int, final: float = 0.0, hold: int = 1
) -> optax.Schedule:
    """Rise linearly from 0 to `peak`, then fall along half a cosine to `final`.

    Args:
        peak: the learning rate at `warmup_steps`.
        total_steps: the step at which `final` is reached.
        warmup_steps: length of the rise; 0 starts at `peak`.
        final: the last learning rate.
        hold: after the warm-up, change it only every so many steps; with the length of
            an epoch and no warm-up this is the schedule of MoCo v2 and SimSiam.

    Raises:
        ValueError: the warm-up is not shorter than the run.

    Example:
        >>> schedule = warmup_cosine(1.0, total_steps=100, warmup_steps=10)
        >>> [round(float(schedule(step)), 3) for step in (0, 5, 10, 55, 100)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"The warm-up ({warmup_steps} steps) must be shorter than the run "
            f"({total_steps} steps): raise config.epochs, or lower "
            "config.optimizer.warmup_epochs."
        )
    if warmup_steps == 0:
        alpha = final / peak if peak else 0.0
        schedule = optax.cosine_decay_schedule(peak, total_steps, alpha)
    else:
        schedule = optax.warmup_cosine_decay_schedule(
            0.0, peak, warmup_steps, total_steps, end_value=final
        )
    if hold == 1:
        return schedule

    def held(step):  # the warm-up itself is never held
        start = jnp.maximum(step // hold * hold, warmup_steps)
        return schedule(jnp.where(step < warmup_steps, step, start))

    return held


def warmup_drops(
    peak: float,
    warmup_steps: int,
    drops: Sequence[int],
    *,
    first: float = 0.0,
    factor: float = 0.1,
) -> optax.Schedule:
    """Rise linearly to `peak`, stay, and fall by a factor at some steps (detection).

    Args:
        peak: the learning rate at `warmup_steps`.
        warmup_steps: length of the rise; 0 starts at `peak`.
        drops: from these steps on it is multiplied by `factor` once more.
        first: the learning rate of step 0 as a share of `peak`, if there is a rise.
        factor: of a drop.

    Raises:
        ValueError: a drop is in the warm-up.

    Example:
        >>> schedule = warmup_drops(1.0, 100, (180, 220), first=0.5)
        >>> [round(float(schedule(step)), 3) for step in (0, 50, 100, 179, 180, 220)]
        [0.5, 0.75, 1.0, 1.0, 0.1, 0.01]
    """
    if drops and min(drops) < warmup_steps:
        raise ValueError(
            f"The learning rate drops at step {min(drops)}, in the warm-up of "
            f"{warmup_steps} steps."
        )
    falling = optax.piecewise_constant_schedule(peak, dict.fromkeys(drops, factor))
    if warmup_steps == 0:
        return falling
    rising = optax.linear_schedule(first * peak, peak, warmup_steps)
    return lambda step: jnp.where(step < warmup_steps, rising(step), falling(step))


def cosine(start: float, end: float, total_steps: int) -> optax.Schedule:
    """Go from `start` to `end` along half a cosine.

    The momentum of the target networks of BYOL, MoCo v3 and DINO rises so to 1, and
    DINO's weight decay from 0.04 to 0.4.

    Source: https://arxiv.org/abs/2006.07733, section 3.2.

    Example:
        >>> momentum = cosine(0.99, 1.0, total_steps=100)
        >>> [round(float(momentum(step)), 4) for step in (0, 50, 100)]
        [0.99, 0.995, 1.0]
    """
    return lambda step: (
        end - (end - start) * (1 + jnp.cos(jnp.pi * step / total_steps)) / 2
    )
