"""Gradient transformations that optax does not have."""

import jax
import jax.numpy as jnp
import optax


def clip_each(norm: float) -> optax.GradientTransformation:
    """Scale each parameter's gradient down to a norm of its own (DINO's clip).

    Source: https://arxiv.org/abs/2104.14294; the official code multiplies by
    `norm / (|g| + 1e-6)` where that is below 1.
    """

    def clip(g):
        return g * jnp.minimum(1.0, norm / (jnp.linalg.norm(g.ravel()) + 1e-6))

    return optax.stateless(lambda grads, _: jax.tree.map(clip, grads))


def scale_by_larc(
    weight_decay: float, trust_coefficient: float = 0.001, eps: float = 1e-8
) -> optax.GradientTransformation:
    """LARC without clipping, as SwAV and DeepCluster-v2 take it from apex.

        g <- (g + weight_decay w) * trust_coefficient |w| / (|g| + weight_decay |w| + eps)

    unless |w| or |g| is 0; then g is left alone, and nothing decays. LARS has the norm
    of the sum, |g + weight_decay w|, instead of the sum of the norms.

    Source: `apex.parallel.LARC` of https://github.com/NVIDIA/apex
    """

    def scale(g, w):
        w_norm, g_norm = (jnp.linalg.norm(x.ravel()) for x in (w, g))
        ratio = trust_coefficient * w_norm / (g_norm + weight_decay * w_norm + eps)
        both = (w_norm > 0) & (g_norm > 0)
        return jnp.where(both, (g + weight_decay * w) * ratio, g)

    return optax.stateless(lambda grads, params: jax.tree.map(scale, grads, params))


def start_after(
    inner: optax.GradientTransformation, steps: int
) -> optax.GradientTransformation:
    """Leave the state of `inner` alone in the first steps, and give no updates.

    As PyTorch does where a gradient is None: neither the moments nor their bias
    correction see the frozen steps.
    """
    if steps == 0:
        return inner

    def init(params):
        return jnp.zeros([], jnp.int32), inner.init(params)

    def update(grads, state, params=None):
        count, old = state
        updates, new = inner.update(grads, old, params)
        frozen = count < steps
        updates = jax.tree.map(lambda u: jnp.where(frozen, 0.0, u), updates)
        kept = jax.tree.map(lambda a, b: jnp.where(frozen, a, b), old, new)
        return updates, (count + 1, kept)

    return optax.GradientTransformation(init, update)
