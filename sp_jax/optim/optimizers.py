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


_OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "lars": _lars,
    "sgd": _sgd,
}


def get(
    name: str, schedule: optax.Schedule, *, weight_decay: float, momentum: float = 0.9
) -> optax.GradientTransformation:
    """Make an optimiser.

    Args:
        name: "lars" (SimCLR's: https://arxiv.org/abs/1708.03888, trust coefficient
            0.001) or "sgd" (heavy-ball momentum).
        schedule: step to learning rate.
        weight_decay: added to the gradient of kernels only, as `weight_decay * w`.
        momentum: share of the buffer that is kept.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in _OPTIMIZERS:
        known = ", ".join(sorted(_OPTIMIZERS))
        raise ValueError(f"There is no optimiser {name!r}; choose one of: {known}.")
    return _OPTIMIZERS[name](schedule, weight_decay, momentum)
