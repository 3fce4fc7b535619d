"""The losses of MoCo v2 (a queue of keys) and MoCo v3 (the keys of the batch)."""

import jax
import jax.numpy as jnp

from sp_jax.losses.checks import same_matrix, same_width
from sp_jax.losses.nt_xent import l2_normalize

_HIGHEST = jax.lax.Precision.HIGHEST


def moco_v2(
    query: jax.Array, key: jax.Array, queue: jax.Array, temperature: float = 0.2
) -> jax.Array:
    r"""InfoNCE of one positive against a queue of negatives.

    With unit rows q and k, and the rows b of the queue,

        loss = mean_i -log( exp(q_i.k_i / T) / (exp(q_i.k_i / T) + sum_j exp(q_i.b_j / T)) )

    Args:
        query: projections of the query network, [N, D], any float dtype.
        key: projections of the key network, [N, D]. No gradient flows into it.
        queue: keys of earlier batches, unit rows [K, D]. No gradient flows into it.
        temperature: T > 0; 0.2 in MoCo v2, 0.07 in v1.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: the shapes do not fit.

    Source: https://arxiv.org/abs/1911.05722, equation 1; https://arxiv.org/abs/2003.04297

    Example:
        >>> q = jnp.array([[1.0, 0.0]])
        >>> float(moco_v2(q, q, -q)) < 0.001
        True
    """
    same_matrix("moco_v2", query, key)
    same_width("moco_v2", query, queue)
    q, k = l2_normalize(query), l2_normalize(jax.lax.stop_gradient(key))
    queue = jax.lax.stop_gradient(queue).astype(jnp.float32)
    return info_nce(q, k, queue, temperature)


def info_nce(
    query: jax.Array, positive: jax.Array, negatives: jax.Array, temperature: float
) -> jax.Array:
    """`moco_v2` of unit rows [N, D], [N, D] and [K, D], with gradients into all of them."""
    scores = jnp.sum(query * positive, axis=-1, keepdims=True)
    others = jnp.matmul(query, negatives.T, precision=_HIGHEST)
    logits = jnp.concatenate([scores, others], axis=1) / temperature
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - logits[:, 0])


def moco_v3(query: jax.Array, key: jax.Array, temperature: float = 1.0) -> jax.Array:
    r"""InfoNCE against the keys of the batch, in one direction.

        loss = 2 T mean_i -log( exp(q_i.k_i / T) / sum_j exp(q_i.k_j / T) )

    MoCo v3 adds the two directions. The factor 2 T keeps the size of the gradient when
    the temperature changes.

    Args:
        query: predictions of the query network, [N, D], any float dtype.
        key: projections of the key network, [N, D]. No gradient flows into it.
        temperature: T > 0; 1.0 for ResNet-50 and 0.2 for ViT in the official code.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: the shapes differ or are not [N, D].

    Source: https://arxiv.org/abs/2104.02057, algorithm 1.

    Example:
        >>> z = jnp.ones((8, 4))  # collapsed: 2 T ln N
        >>> round(float(moco_v3(z, z, temperature=0.5)), 4)
        2.0794
    """
    same_matrix("moco_v3", query, key)
    q, k = l2_normalize(query), l2_normalize(jax.lax.stop_gradient(key))
    logits = jnp.matmul(q, k.T, precision=_HIGHEST) / temperature
    positive = jnp.sum(q * k, axis=-1) / temperature
    cross_entropy = jnp.mean(jax.nn.logsumexp(logits, axis=1) - positive)
    return 2 * temperature * cross_entropy
