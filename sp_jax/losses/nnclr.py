"""The loss of NNCLR, and the nearest neighbours that it takes for positives."""

import jax
import jax.numpy as jnp

from sp_jax.losses.checks import same_matrix, same_width
from sp_jax.losses.nt_xent import l2_normalize

_HIGHEST = jax.lax.Precision.HIGHEST


def nearest_neighbours(projection: jax.Array, queue: jax.Array) -> jax.Array:
    r"""The row of a queue that is closest to each projection, by cosine.

        argmax_k cos(z_i, b_k)

    Args:
        projection: [N, D], any float dtype.
        queue: projections of earlier batches, unit rows [K, D].

    Returns:
        Numbers of rows, int32 [N]; of rows that are equally close the first.

    Raises:
        ValueError: the widths differ.

    Source: https://arxiv.org/abs/2104.14548, equation 3.

    Example:
        >>> nearest_neighbours(jnp.array([[1.0, 3.0]]), jnp.eye(2))
        Array([1], dtype=int32)
    """
    same_width("nearest_neighbours", projection, queue)
    z = l2_normalize(projection)
    cosine = jnp.matmul(z, queue.astype(jnp.float32).T, precision=_HIGHEST)
    return jnp.argmax(cosine, axis=1).astype(jnp.int32)


def nnclr(
    prediction: jax.Array, neighbour: jax.Array, temperature: float = 0.1
) -> jax.Array:
    r"""InfoNCE of a neighbour against the predictions of the batch, in one direction.

    With unit rows n and p,

        loss = mean_i -log( exp(n_i.p_i / T) / sum_j exp(n_i.p_j / T) )

    NNCLR takes the mean of the two directions: the neighbours of each view against the
    predictions of the other.

    Args:
        prediction: of one view, [N, D], any float dtype.
        neighbour: rows of the queue that are nearest to the projections of the other view,
            [N, D]. No gradient flows into it.
        temperature: T > 0.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: the shapes differ or are not [N, D].

    Source: https://arxiv.org/abs/2104.14548, equation 4, and the pseudocode, in which the
    softmax is over the predictions only.

    Example:
        >>> p = jnp.ones((8, 4))  # collapsed: ln N
        >>> round(float(nnclr(p, p)), 4)
        2.0794
    """
    same_matrix("nnclr", prediction, neighbour)
    p = l2_normalize(prediction)
    n = l2_normalize(jax.lax.stop_gradient(neighbour))
    logits = jnp.matmul(n, p.T, precision=_HIGHEST) / temperature
    positive = jnp.sum(n * p, axis=-1) / temperature
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - positive)
