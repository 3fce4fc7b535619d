"""Optimisers by name, with the parameter rules of the papers."""

from collections.abc import Callable
from typing import Any

import jax
import optax


def kernel_mask(params: Any) -> Any:
    """True for the parameters that decay and are adapted: those named "kernel".

    Biases and the scales of normalisations are left out of weight decay and of LARS's
    trust ratio by every paper that trains with LARS.
    """
    return jax.tree.map_with_path(lambda path, _: path[-1].key == "kernel", params)


def _lars(schedule, weight_decay, momentum):
    # SimCLR's dialect: the rate multiplies the gradient before the momentum buffer.
    return optax.lars(
        schedule,
        weight_decay=weight_decay,
        weight_decay_mask=kernel_mask,
        trust_coefficient=0.001,
        trust_ratio_mask=kernel_mask,
        momentum=momentum,
    )


def _sgd(schedule, weight_decay, momentum):
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=kernel_mask),
        optax.sgd(schedule, momentum=momentum),
    )


def _adamw(schedule, weight_decay, momentum):
    return optax.adamw(
        schedule, b1=momentum, weight_decay=weight_decay, mask=kernel_mask
    )


_OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "lars": _lars,
    "sgd": _sgd,
    "adamw": _adamw,
}


def get(
    name: str, schedule: optax.Schedule, *, weight_decay: float, momentum: float = 0.9
) -> optax.GradientTransformation:
    """Make an optimiser.

    Args:
        name: "lars" (SimCLR's: https://arxiv.org/abs/1708.03888, trust coefficient
            0.001), "sgd" (heavy-ball momentum) or "adamw"
            (https://arxiv.org/abs/1711.05101).
        schedule: step to learning rate.
        weight_decay: of kernels only. `weight_decay * w` is added to the gradient, or
            for "adamw" to the update before the learning rate.
        momentum: share of the buffer that is kept; for "adamw" its beta 1.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in _OPTIMIZERS:
        known = ", ".join(sorted(_OPTIMIZERS))
        raise ValueError(f"There is no optimiser {name!r}; choose one of: {known}.")
    return _OPTIMIZERS[name](schedule, weight_decay, momentum)
