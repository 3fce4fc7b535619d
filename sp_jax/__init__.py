"""sp_jax: self-supervised learning on semantic pairs, in JAX and Flax."""

import os
import typing

if typing.TYPE_CHECKING:
    from sp_jax.backbone import Backbone


def load(path: str | os.PathLike, *, untrained: bool = False) -> "Backbone":
    """Load the frozen backbone of a run or of a file, to make features of images.

    Args:
        path: a run's folder (its newest checkpoint), one `checkpoints/STEP`, or a file of
            weights: what `sp_jax.export` wrote (a folder, too), or torchvision's, timm's or
            transformers'; see `sp_jax.weights.load`.
        untrained: the same network before its first step, made from the run's config and
            seed (of a file: at random from seed 0), as a floor to compare with.

    Returns:
        A `sp_jax.backbone.Backbone`: `backbone(uint8 [n, S, S, 3]) -> float32 [n, D]`.

    Raises:
        UserError: there is none, it is damaged, or it holds no known network; or it is a
            run, and what the extra `train` installs is missing.

    Example:
        >>> backbone = load("runs/quickstart/semantic")  # doctest: +SKIP
        >>> backbone(images).shape  # doctest: +SKIP
        (1, 128)
    """
    # Imported here: sp_jax.losses costs no more than jax.
    from sp_jax import extras, weights

    if weights.find_file(path) or (
        os.path.splitext(path)[1] and not os.path.isdir(path)
    ):
        backbone = weights.load(path)
        return backbone.untrained() if untrained else backbone
    extras.require("train", "Loading a run")
    from sp_jax.train.restore import load_backbone

    return load_backbone(path, untrained=untrained)
