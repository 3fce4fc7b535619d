"""The loss of SwAV, and the Sinkhorn-Knopp codes that it predicts."""

import jax
import jax.numpy as jnp

from sp_jax.losses.checks import same_matrix


def sinkhorn(
    scores: jax.Array, epsilon: float = 0.05, iterations: int = 3
) -> jax.Array:
    r"""Soft assignments of a batch to prototypes that use all prototypes equally.

    Starting from Q = exp(scores / epsilon), each iteration scales the columns
    (prototypes) to the sum B / K and then the rows (samples) to the sum 1. So rows sum to
    exactly 1 and columns to about B / K. Computed with logarithms in float32: scores of
    any size stay finite.

    Args:
        scores: similarities to the prototypes, [B, K], any float dtype.
        epsilon: > 0; the smaller, the sharper.
        iterations: how often.

    Returns:
        Codes, float32 [B, K]. No gradient flows through them.

    Raises:
        ValueError: scores are not [B, K].

    Source: https://arxiv.org/abs/2006.09882, section 3.1 and appendix A.

    Example:
        >>> sinkhorn(jnp.zeros((4, 2))).sum(axis=1)
        Array([1., 1., 1., 1.], dtype=float32)
    """
    if scores.ndim != 2:
        raise ValueError(f"sinkhorn needs scores [B, K], not {scores.shape}.")
    b, k = scores.shape
    log_q = jax.lax.stop_gradient(scores).astype(jnp.float32) / epsilon
    for _ in range(iterations):
        log_q = log_q - jax.nn.logsumexp(log_q, axis=0, keepdims=True) + jnp.log(b / k)
        log_q = log_q - jax.nn.logsumexp(log_q, axis=1, keepdims=True)
    return jnp.exp(log_q)


def swav(scores: jax.Array, codes: jax.Array, temperature: float = 0.1) -> jax.Array:
    r"""Cross entropy of one view's prediction with the codes of another.

        loss = -mean_i sum_k codes_ik log softmax(scores_i / T)_k

    SwAV averages it over the pairs (view with codes, any other view). About ln K while
    the scores are small.

    Args:
        scores: similarities of a view to the prototypes, [N, K], any float dtype.
        codes: of the other view, rows that sum to 1, [N, K]. No gradient flows into it.
        temperature: T > 0.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: the shapes differ or are not [N, K].

    Source: https://arxiv.org/abs/2006.09882, equation 2.

    Example:
        >>> scores = jnp.zeros((8, 5))
        >>> round(float(swav(scores, sinkhorn(scores))), 4)  # ln 5
        1.6094
    """
    same_matrix("swav", scores, codes)
    log_p = jax.nn.log_softmax(scores.astype(jnp.float32) / temperature, axis=-1)
    codes = jax.lax.stop_gradient(codes).astype(jnp.float32)
    return -jnp.mean(jnp.sum(codes * log_p, axis=-1))
