"""What a method is: a handful of pure functions, as optax's `(init, update)`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

PyTree = Any


class Output(NamedTuple):
    """What `Method.loss` returns beside the loss.

    Attributes:
        state: the method's new buffers, such as the statistics of batch normalisation.
        metrics: float32 scalars to log.
        features: backbone features of the views, float32 [N, V, D], for the health of
            the representation. No gradient is taken through them.
    """

    state: PyTree
    metrics: dict[str, jax.Array]
    features: jax.Array


class Method(NamedTuple):
    """A self-supervised method. It does not know how its pairs were made.

    Attributes:
        init: `init(key, views) -> (params, state)`; views is a list of images
            [N, s, s, 3], of which only the shapes matter.
        loss: `loss(params, state, views, step, key) -> (loss, Output)`: the float32 loss
            of the global batch. All randomness comes from key.
        update: `update(state, params, step, total_steps) -> state`, called with the new
            parameters after the optimiser: where a moving average lives.
        features: `features(params, state, images) -> [N, D]`: the frozen representation
            of normalised images, float32.
    """

    init: Callable[[jax.Array, list[jax.Array]], tuple[PyTree, PyTree]]
    loss: Callable[..., tuple[jax.Array, Output]]
    update: Callable[[PyTree, PyTree, jax.Array, int], PyTree]
    features: Callable[[PyTree, PyTree, jax.Array], jax.Array]
