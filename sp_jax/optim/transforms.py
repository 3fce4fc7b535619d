"""Gradient transformations that optax does not have."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree


def clip_each(norm: float) -> optax.GradientTransformation:
    """Clip the norm of each parameter's gradient by itself, as DINO does.

    Source: https://arxiv.org/abs/2104.14294; the official code multiplies by
    `norm / (|g| + 1e-6)` where that is below 1.
    """

    def clip(g, g_norm):
        return g * jnp.minimum(1.0, norm / (g_norm + 1e-6))

    return optax.stateless(
        lambda grads, _: jax.tree.map(clip, grads, leaf_norms(grads))
    )


def leaf_norms(
    tree: PyTree[Float[Array | np.ndarray, "..."]],
) -> PyTree[Float[Array, ""]]:
    """The L2 norm of each leaf, in a tree of scalars.

    On accelerators leaves of one shape are reduced together: a reduction for each leaf of a
    ResNet is hundreds of kernels there. On a CPU the copies cost more than they save.
    """

    def norms(x, first=0):
        # Not of a flat vector: a leaf that is split over devices would be gathered.
        return jnp.sqrt(jnp.sum(jnp.square(x), axis=tuple(range(first, x.ndim))))

    if jax.default_backend() == "cpu":
        return jax.tree.map(norms, tree)
    leaves, structure = jax.tree.flatten(tree)
    groups = collections.defaultdict(list)
    for i, leaf in enumerate(leaves):
        groups[leaf.shape].append(i)
    found = {}
    for places in groups.values():
        together = norms(jnp.stack([leaves[i] for i in places]), first=1)
        for i, norm in zip(places, together, strict=True):
            found[i] = norm
    return jax.tree.unflatten(structure, [found[i] for i in range(len(leaves))])


def scale_by_trust_ratio(coefficient: float = 0.001) -> optax.GradientTransformation:
    """LARS: scale each update to `coefficient` times the norm of its parameter.

    An update is left alone if its norm or that of its parameter is 0. The same as
    `optax.scale_by_trust_ratio`, in fewer kernels.

    Source: https://arxiv.org/abs/1708.03888
    """

    def scale(update, u_norm, w_norm):
        both = (w_norm > 0) & (u_norm > 0)
        ratio = coefficient * w_norm / jnp.where(both, u_norm, 1.0)
        return update * jnp.where(both, ratio, 1.0)

    def update(updates, params):
        return jax.tree.map(scale, updates, leaf_norms(updates), leaf_norms(params))

    return optax.stateless(update)


def scale_by_larc(
    weight_decay: float, trust_coefficient: float = 0.001, eps: float = 1e-8
) -> optax.GradientTransformation:
    """LARC without clipping, as SwAV and DeepCluster-v2 take it from apex.

        g <- (g + weight_decay w) * trust_coefficient |w| / (|g| + weight_decay |w| + eps)

    unless |w| or |g| is 0; then g is left alone, and nothing decays. LARS has the norm
    of the sum, |g + weight_decay w|, instead of the sum of the norms.

    Source: `apex.parallel.LARC` of https://github.com/NVIDIA/apex
    """

    def scale(g, w, g_norm, w_norm):
        ratio = trust_coefficient * w_norm / (g_norm + weight_decay * w_norm + eps)
        both = (w_norm > 0) & (g_norm > 0)
        return jnp.where(both, (g + weight_decay * w) * ratio, g)

    def update(grads, params):
        norms = leaf_norms(grads), leaf_norms(params)
        return jax.tree.map(scale, grads, params, *norms)

    return optax.stateless(update)


def start_after(
    inner: optax.GradientTransformation, steps: int
) -> optax.GradientTransformation:
    """Make no updates in the first steps, and leave the state of `inner` unchanged.

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
