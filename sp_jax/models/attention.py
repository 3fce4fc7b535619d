"""Attention between all tokens of an image, in plain operations or in one kernel."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

from sp_jax.models.layers import at_least_float32

Heads = Float[Array, "n tokens heads size"]


def attend(query: Heads, key: Heads, value: Heads) -> Heads:
    """Softmax attention; the weights are computed in float32 at least."""
    query = query * query.shape[-1] ** -0.5
    logits = jnp.einsum("nqhd,nkhd->nhqk", query, key)
    weights = jax.nn.softmax(at_least_float32(logits)).astype(value.dtype)
    return jnp.einsum("nhqk,nkhd->nqhd", weights, value)


def fits_cudnn(size: int, dtype: DTypeLike) -> bool:
    """Whether cuDNN has one kernel for heads of this width here, gradient included.

    Source: https://docs.nvidia.com/deeplearning/cudnn/frontend/latest/operations/Attention.html
    """
    narrow = np.dtype(dtype) in (jnp.bfloat16, jnp.float16)
    return narrow and jax.default_backend() == "gpu" and size <= 128 and size % 8 == 0


def attend_padded(
    query: Heads,
    key: Heads,
    value: Heads,
    tokens: int,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> Heads:
    """`attend` to the first `tokens` only, in one kernel; the other outputs are zeros.

    Args:
        query: of all tokens, with padding, like key and value.
        key: likewise.
        value: likewise.
        tokens: how many there are.
        implementation: "xla" does the same in plain operations, for tests.
    """
    lengths = jnp.full(len(query), tokens, jnp.int32)
    return jax.nn.dot_product_attention(
        query,
        key,
        value,
        query_seq_lengths=lengths,
        key_value_seq_lengths=lengths,
        implementation=implementation,
    )
