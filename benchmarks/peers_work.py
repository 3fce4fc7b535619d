"""The work of all peers of `benchmarks.peers`, in plain numbers, without jax and torch."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Work:
    """The network, the data and the settings of a training, as plain numbers and arrays.

    Attributes:
        method: simclr or vicreg.
        model: arguments of `sp_jax.models.get`.
        options: all keyword arguments of the method's `create`.
        optimizer: name (adamw, sgd or a LARS), learning_rate (for this batch), weight_decay
            and momentum.
        views: the fields of `sp_jax.augment.Augment` for each of the two views, and
            "kernel_size".
        batch_size: pairs a step.
        images: uint8 [N, S, S, 3].
        pairs: rows of the images, int32 [P, 2].
    """

    method: str
    model: dict[str, Any]
    options: dict[str, Any]
    optimizer: dict[str, Any]
    views: list[dict[str, Any]]
    batch_size: int
    images: np.ndarray
    pairs: np.ndarray
