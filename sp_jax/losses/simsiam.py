"""The loss of SimSiam."""

import jax
import jax.numpy as jnp

from sp_jax.losses.checks import same_matrix
from sp_jax.losses.nt_xent import l2_normalize


def simsiam(prediction: jax.Array, target: jax.Array) -> jax.Array:
    r"""Negative mean cosine, in one direction.

        loss = -mean_i cos(p_i, t_i)

    Between -1 (equal directions) and 1. SimSiam takes the mean of the two directions.

    Args:
        prediction: of the predictor, [N, D], any float dtype.
        target: projections of the other view, [N, D]. No gradient flows into it: that is
            what keeps SimSiam from collapsing.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: the shapes differ or are not [N, D].

    Source: https://arxiv.org/abs/2011.10566, equation 1.

    Example:
        >>> float(simsiam(jnp.eye(4), jnp.eye(4)))
        -1.0
    """
    same_matrix("simsiam", prediction, target)
    # The official code divides by lengths of at least 1e-8.
    p = l2_normalize(prediction, eps=1e-16)
    t = l2_normalize(jax.lax.stop_gradient(target), eps=1e-16)
    return -jnp.mean(jnp.sum(p * t, axis=-1))
