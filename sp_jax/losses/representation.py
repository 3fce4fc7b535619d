"""Health of a representation: four scalars that show a collapse before a probe does.

Every function takes features as arrays and returns a float32 scalar. In the formulas u is a
row of x scaled to length 1. They are not made for training: where all features are equal, some
have no gradient (NaN).
"""

import jax
import jax.numpy as jnp

from sp_jax.losses.checks import same_matrix
from sp_jax.losses.nt_xent import l2_normalize


def feature_std(features: jax.Array) -> jax.Array:
    """Mean over dimensions of the standard deviation of unit-length features [N, D].

        mean_d std_i(u_id)

    About 1 / sqrt(D) for features spread evenly over the sphere, 0 when all are equal.

    Source: https://arxiv.org/abs/2011.10566, section 4.1.

    Example:
        >>> float(feature_std(jnp.ones((4, 8))))
        0.0
    """
    return jnp.mean(jnp.std(l2_normalize(features), axis=0))


def alignment(x: jax.Array, y: jax.Array) -> jax.Array:
    """Mean squared distance of positive pairs on the unit sphere: 0 (equal) to 4.

        mean_i |u_i - v_i|^2, where v is a row of y scaled to length 1

    Args:
        x: features [N, D].
        y: features [N, D]; row i of both is a pair.

    Raises:
        ValueError: the shapes are not equal, or not of two dimensions.

    Source: https://arxiv.org/abs/2005.10242

    Example:
        >>> float(alignment(jnp.eye(4), -jnp.eye(4)))
        4.0
    """
    same_matrix("alignment", x, y)
    return jnp.mean(jnp.sum(jnp.square(l2_normalize(x) - l2_normalize(y)), axis=-1))


def uniformity(x: jax.Array, t: float = 2.0) -> jax.Array:
    """Log of the mean Gaussian potential over all pairs of different rows of x [N, D].

        log mean_{i != j} exp(-t |u_i - u_j|^2)

    0 when all features are equal; the lower, the more evenly they are spread. NaN for a single
    row, which is in no pair.

    Source: https://arxiv.org/abs/2005.10242

    Example:
        >>> round(float(uniformity(jnp.array([[1.0, 0.0], [-1.0, 0.0]]))), 4)
        -8.0
    """
    u = l2_normalize(x)
    n = u.shape[0]
    gram = jnp.matmul(u, u.T, precision=jax.lax.Precision.HIGHEST)
    potentials = -t * (2.0 - 2.0 * gram)
    different = ~jnp.eye(n, dtype=bool)
    total = jax.nn.logsumexp(jnp.where(different, potentials, -jnp.inf))
    return total - jnp.log(float(n * (n - 1)))


def effective_rank(x: jax.Array) -> jax.Array:
    """RankMe: exp of the entropy of the normalised singular values of x [N, D].

        exp(-sum_k p_k log p_k), p_k = s_k / sum_l s_l, with the singular values s

    Between 1 and min(N, D); the number of directions that the features fill. Singular values
    below about 2e-4 of the largest drown in rounding: of rows that are all equal the result
    is up to 1.3, not 1.

    Source: https://arxiv.org/abs/2210.02885

    Example:
        >>> round(float(effective_rank(jnp.eye(5))), 3)
        5.0
    """
    x = x.astype(jnp.float32)
    x = x if x.shape[0] <= x.shape[1] else x.T  # the smaller Gram matrix
    gram = jnp.matmul(x, x.T, precision=jax.lax.Precision.HIGHEST)
    singular = jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(gram), 0.0))
    p = singular / jnp.maximum(jnp.sum(singular), 1e-12)
    return jnp.exp(-jnp.sum(jax.scipy.special.xlogy(p, p)))
