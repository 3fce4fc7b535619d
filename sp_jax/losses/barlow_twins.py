"""The loss of Barlow Twins."""

import jax
import jax.numpy as jnp

from sp_jax.losses.checks import same_matrix


def barlow_twins(
    z1: jax.Array, z2: jax.Array, off_diagonal_weight: float = 0.0051, eps: float = 1e-5
) -> jax.Array:
    r"""Distance of the cross-correlation of two views from the identity.

    Each column is normalised over the batch (biased variance plus eps, no scale and no
    bias: the batch normalisation at the end of the official network). With the results n,

        C = n1^T n2 / N
        loss = sum_i (1 - C_ii)^2 + off_diagonal_weight sum_{i != j} C_ij^2

    Args:
        z1: projections of the first views, [N, D], any float dtype.
        z2: projections of the second views, [N, D].
        off_diagonal_weight: lambda; the official code has 0.0051 for D = 8192.
        eps: added to the variance.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: the shapes differ or are not [N, D].

    Source: https://arxiv.org/abs/2103.03230, equation 1. The released code sums as here;
    other ports multiply the sum by a small constant.

    Example:
        >>> z = jax.random.normal(jax.random.key(0), (512, 4))
        >>> float(barlow_twins(z, z)) < 0.01
        True
    """
    same_matrix("barlow_twins", z1, z2)
    n = z1.shape[0]

    def standardise(z):
        z = z.astype(jnp.float32)
        return (z - jnp.mean(z, 0)) * jax.lax.rsqrt(jnp.var(z, 0) + eps)

    exact = jax.lax.Precision.HIGHEST
    c = jnp.matmul(standardise(z1).T, standardise(z2), precision=exact) / n
    diagonal = jnp.diagonal(c)
    # The off-diagonal sum by a mask: a difference of two large sums would lose digits.
    off = jnp.where(jnp.eye(c.shape[0], dtype=bool), 0.0, c)
    return jnp.sum((1.0 - diagonal) ** 2) + off_diagonal_weight * jnp.sum(off**2)
