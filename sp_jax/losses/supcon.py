"""SupCon, the loss of supervised contrastive learning."""

import jax
import jax.numpy as jnp

from sp_jax.losses.checks import same_matrix
from sp_jax.losses.nt_xent import l2_normalize


def supcon(
    z1: jax.Array, z2: jax.Array, label: jax.Array, temperature: float = 0.1
) -> jax.Array:
    r"""NT-Xent in which all rows of the same label are positives of each other.

    With the 2N unit rows u of [z1; z2], s_ij = u_i . u_j / temperature, and P(i) the rows
    with the label of row i, but not i itself:

        loss = 1 / 2N  sum_i  1 / |P(i)|  sum_{p in P(i)}
                   -log( exp(s_ip) / sum_{j != i} exp(s_ij) )

    This is L_out: the sum over the positives is outside the logarithm. Where no two
    pairs share a label it is `nt_xent`. The official TensorFlow code multiplies it by the
    temperature, the official PyTorch code by temperature / 0.07; here it is plain.

    Args:
        z1: projections of the first views, [N, D], any float dtype.
        z2: projections of the second views, [N, D]. Row i of both is a pair.
        label: of each pair, integers [N]. Below 0: not known; the only positive of such a
            view is the other view of its pair, and it is a negative of all others.
        temperature: scale of the similarities, > 0; 0.1 in the official code for ImageNet.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: the shapes do not fit.

    Source: https://arxiv.org/abs/2004.11362, equation 2.

    Example:
        >>> z = jnp.ones((4, 8))  # collapsed: ln(2 N - 1) with any labels
        >>> round(float(supcon(z, z, jnp.array([0, 0, 1, -1]))), 4)
        1.9459
    """
    same_matrix("supcon", z1, z2)
    n = z1.shape[0]
    if label.shape != (n,):
        raise ValueError(
            f"supcon needs a label for each of {n} rows, not {label.shape}."
        )
    u = l2_normalize(jnp.concatenate([z1, z2]))
    logits = jnp.matmul(u, u.T, precision=jax.lax.Precision.HIGHEST) / temperature
    itself = jnp.eye(2 * n, dtype=bool)
    denominator = jax.nn.logsumexp(jnp.where(itself, -jnp.inf, logits), axis=-1)
    # Pairs without a label get one of their own.
    group = jnp.tile(jnp.where(label < 0, -1 - jnp.arange(n), label), 2)
    positive = (group[:, None] == group[None, :]) & ~itself
    pulled = jnp.sum(jnp.where(positive, logits, 0.0), -1) / jnp.sum(positive, -1)
    return jnp.mean(denominator - pulled)
