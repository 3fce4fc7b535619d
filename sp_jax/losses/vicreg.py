"""The loss of VICReg."""

import jax
import jax.numpy as jnp

from sp_jax.losses.checks import same_matrix


def vicreg(
    z1: jax.Array,
    z2: jax.Array,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    eps: float = 1e-4,
) -> jax.Array:
    r"""Invariance, variance and covariance terms.

        s  = mean over N and D of (z1 - z2)^2
        v  = 1/2 sum over views of mean_d max(0, 1 - sqrt(var_d + eps))
        c  = sum over views of  1/D sum_{d != e} cov_de^2
        loss = invariance s + variance v + covariance c

    Variance and covariance are unbiased (N - 1). This is the official code, which differs
    from the paper: there s is the mean over N of |z1 - z2|^2, without 1/D, and v is the
    sum over the two views, without 1/2. In both, c is a sum.

    Args:
        z1: projections of the first views, [N, D], any float dtype, N >= 2.
        z2: projections of the second views, [N, D].
        invariance: weight of s.
        variance: weight of v.
        covariance: weight of c.
        eps: added to the variance under the root.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: the shapes differ or are not [N, D], or N is 1.

    Source: https://arxiv.org/abs/2105.04906, equations 1 to 6;
    https://github.com/facebookresearch/vicreg for the factors.

    Example:
        >>> z = jnp.ones((4, 8))  # collapsed: only the variance term is left
        >>> round(float(vicreg(z, z)), 2)
        24.75
    """
    same_matrix("vicreg", z1, z2)
    n, d = z1.shape
    if n < 2:
        raise ValueError("vicreg needs at least 2 pairs, to take a variance over them.")
    z1, z2 = z1.astype(jnp.float32), z2.astype(jnp.float32)

    def terms(z):
        z = z - jnp.mean(z, 0)
        std = jnp.sqrt(jnp.sum(z**2, 0) / (n - 1) + eps)
        cov = jnp.matmul(z.T, z, precision=jax.lax.Precision.HIGHEST) / (n - 1)
        off = jnp.where(jnp.eye(d, dtype=bool), 0.0, cov)
        return jnp.mean(jax.nn.relu(1.0 - std)), jnp.sum(off**2) / d

    (v1, c1), (v2, c2) = terms(z1), terms(z2)
    return (
        invariance * jnp.mean((z1 - z2) ** 2)
        + variance * (v1 + v2) / 2
        + covariance * (c1 + c2)
    )
