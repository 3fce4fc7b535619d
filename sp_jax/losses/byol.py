"""The loss of BYOL."""

import jax
import jax.numpy as jnp

from sp_jax.losses.checks import same_matrix
from sp_jax.losses.nt_xent import l2_normalize


def byol(prediction: jax.Array, target: jax.Array) -> jax.Array:
    r"""Mean squared distance of unit vectors, in one direction.

        loss = mean_i |p_i / |p_i| - t_i / |t_i||^2  =  mean_i (2 - 2 cos(p_i, t_i))

    0 for equal directions, 4 for opposite ones. BYOL adds the two directions: the first
    view predicts the target of the second, and the reverse.

    Args:
        prediction: of the online network, [N, D], any float dtype.
        target: projections of the target network, [N, D]. No gradient flows into it.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: the shapes differ or are not [N, D].

    Source: https://arxiv.org/abs/2006.07733, equation 2.

    Example:
        >>> float(byol(jnp.eye(4), -jnp.eye(4)))
        4.0
    """
    same_matrix("byol", prediction, target)
    p = l2_normalize(prediction)
    t = l2_normalize(jax.lax.stop_gradient(target))
    return jnp.mean(jnp.sum(jnp.square(p - t), axis=-1))
