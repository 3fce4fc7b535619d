"""The losses of PIRL, with a memory bank of all images as negatives."""

import jax
import jax.numpy as jnp

from sp_jax.losses.checks import same_matrix, same_width
from sp_jax.losses.moco import info_nce
from sp_jax.losses.nt_xent import l2_normalize

_HIGHEST = jax.lax.Precision.HIGHEST


def nce(
    features: jax.Array,
    positives: jax.Array,
    negatives: jax.Array,
    normalizer: jax.Array,
    num_images: int,
    temperature: float = 0.07,
) -> jax.Array:
    r"""Noise-contrastive estimation: is this the memory of my image, or noise?

    With unit rows v, the score s(m) = exp(v.m / T) / Z, M negatives drawn uniformly from
    a bank of I images, and P(m) = s(m) / (s(m) + M / I),

        loss = -mean_i [ log P(m_i) + sum_j log(1 - P(m_j)) ]

    Args:
        features: projections, [N, D], any float dtype.
        positives: the memory of each row's image, unit rows [N, D].
        negatives: memories drawn from the whole bank, shared by the batch, unit rows
            [M, D]. As in the official code the draw may hit a positive. No gradient
            flows into the memories.
        normalizer: Z, a positive scalar; see `nce_normalizer`.
        num_images: I, the rows of the bank.
        temperature: T > 0.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: the shapes do not fit.

    Source: https://arxiv.org/abs/1912.01991, equations 4 and 5;
    https://arxiv.org/abs/1805.01978 for the constant Z.

    Example:
        >>> v = jnp.array([[1.0, 0.0]])
        >>> good = nce(v, v, -v, 1.0, num_images=10)
        >>> bad = nce(v, -v, v, 1.0, num_images=10)
        >>> bool(good < 0.01 < bad)
        True
    """
    same_matrix("nce", features, positives)
    same_width("nce", features, negatives)
    v = l2_normalize(features)
    memories = positives, negatives, normalizer
    positives, negatives, normalizer = jax.lax.stop_gradient(memories)
    # log of s / (M / I); P is its sigmoid, so that nothing overflows.
    offset = jnp.log(normalizer) + jnp.log(negatives.shape[0] / num_images)
    positive = jnp.sum(v * positives, axis=-1) / temperature - offset
    negative = jnp.matmul(v, negatives.T, precision=_HIGHEST) / temperature - offset
    noise = jnp.sum(jax.nn.log_sigmoid(-negative), axis=-1)
    return -jnp.mean(jax.nn.log_sigmoid(positive) + noise)


def nce_normalizer(
    features: jax.Array, memories: jax.Array, num_images: int, temperature: float = 0.07
) -> jax.Array:
    """Estimate the constant Z of `nce`, the sum over the bank of I images.

        Z = I mean over i and j of exp(v_i.m_j / T)

    Made once from the first batch, as in the official code.

    Args:
        features: projections, [N, D].
        memories: unit rows [M, D].
        num_images: I, the rows of the bank.
        temperature: as in `nce`.

    Returns:
        A float32 scalar without gradient.

    Raises:
        ValueError: the shapes do not fit.

    Source: https://arxiv.org/abs/1805.01978, section 3.2.

    Example:
        >>> float(nce_normalizer(jnp.eye(2)[:1], jnp.eye(2)[1:], num_images=10))
        10.0
    """
    same_width("nce_normalizer", features, memories)
    v = l2_normalize(jax.lax.stop_gradient(features))
    scores = jnp.matmul(v, memories.T, precision=_HIGHEST) / temperature
    return jax.lax.stop_gradient(jnp.mean(jnp.exp(scores)) * num_images)


def memory_info_nce(
    features: jax.Array,
    positives: jax.Array,
    negatives: jax.Array,
    temperature: float = 0.1,
) -> jax.Array:
    r"""InfoNCE against a memory bank: the loss of PIRL's variant with MLP heads.

        loss = mean_i -log( exp(v_i.m_i / T) / (exp(v_i.m_i / T) + sum_j exp(v_i.m_j / T)) )

    Args:
        features: projections, [N, D], any float dtype.
        positives: the memory of each row's image, unit rows [N, D].
        negatives: unit rows [M, D]. No gradient flows into the memories.
        temperature: T > 0.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: the shapes do not fit.

    Source: https://arxiv.org/abs/1912.01991; the second recipe of
    https://github.com/facebookresearch/vissl/tree/main/projects/PIRL

    Example:
        >>> v = jnp.array([[1.0, 0.0]])
        >>> float(memory_info_nce(v, v, -v)) < 0.001
        True
    """
    same_matrix("memory_info_nce", features, positives)
    same_width("memory_info_nce", features, negatives)
    positives, negatives = jax.lax.stop_gradient((positives, negatives))
    return info_nce(l2_normalize(features), positives, negatives, temperature)
