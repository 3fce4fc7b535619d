"""NT-Xent, the loss of SimCLR."""

import jax
import jax.numpy as jnp

from sp_jax.losses.checks import same_matrix


def l2_normalize(x: jax.Array, eps: float = 1e-12) -> jax.Array:
    """Scale each row of x [..., D] to length 1, in float32.

        y = x / sqrt(max(|x|^2, eps))

    `eps` is the floor of the *squared* length. A zero row stays zero, and its gradient is
    finite and not NaN: that of y, times 1 / sqrt(eps).

    Args:
        x: rows, [..., D], any float dtype.
        eps: floor of the squared length.

    Returns:
        float32 [..., D].

    Source: `tf.math.l2_normalize`, which SimCLR uses; BYOL's code has the same.

    Example:
        >>> [round(float(value), 4) for value in l2_normalize(jnp.array([3.0, 4.0]))]
        [0.6, 0.8]
    """
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), eps))


def nt_xent(z1: jax.Array, z2: jax.Array, temperature: float = 0.1) -> jax.Array:
    r"""Normalised temperature-scaled cross entropy over both directions.

    With the 2N unit rows u of [z1; z2], s_ij = u_i . u_j / temperature and p(i) the
    other view of row i:

        loss = 1 / 2N  sum_i  -log( exp(s_ip(i)) / sum_{j != i} exp(s_ij) )

    Each row has 1 positive and 2N - 2 negatives. The mean is over the 2N rows: half of
    the value that the official TensorFlow 2 code reports.

    Args:
        z1: projections of the first views, [N, D], any float dtype.
        z2: projections of the second views, [N, D]. Row i of both is a positive pair.
        temperature: of the similarities, > 0. Officially 0.1; 0.5 for CIFAR-10.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: the shapes differ or are not [N, D].

    Source: https://arxiv.org/abs/2002.05709, equation 1.

    Example:
        >>> z = jnp.eye(4)
        >>> float(nt_xent(z, z, temperature=0.1)) < 0.01
        True
    """
    same_matrix("nt_xent", z1, z2)
    n = z1.shape[0]
    u = l2_normalize(jnp.concatenate([z1, z2]))
    logits = jnp.matmul(u, u.T, precision=jax.lax.Precision.HIGHEST) / temperature
    logits = jnp.where(jnp.eye(2 * n, dtype=bool), -jnp.inf, logits)
    positive = jnp.sum(u * jnp.roll(u, n, axis=0), -1) / temperature
    return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - positive)
