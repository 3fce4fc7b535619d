"""sp_jax: self-supervised learning on semantic pairs, in JAX and Flax."""

import os
import typing

if typing.TYPE_CHECKING:
    from sp_jax.backbone import Backbone


def load(path: str | os.PathLike) -> "Backbone":
    """Load the frozen backbone of a run, to make features of images.

    Args:
        path: a run's folder (its newest checkpoint), or one `checkpoints/STEP`.

    Returns:
        A `sp_jax.backbone.Backbone`: `backbone(uint8 [n, S, S, 3]) -> float32 [n, D]`.

    Raises:
        UserError: there is no checkpoint, or it is damaged.

    Example:
        >>> backbone = load("runs/quickstart/semantic")  # doctest: +SKIP
        >>> backbone(images).shape  # doctest: +SKIP
        (1, 512)
    """
    # Imported here: sp_jax.losses costs no more than jax.
    from sp_jax.train.restore import load_backbone

    return load_backbone(path)
