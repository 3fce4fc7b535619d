"""Multinomial logistic regression, optimised by L-BFGS on all rows at once.

The loss is that of `eval.probes`, on standardised features. It is convex, and its optimum that
of scikit-learn's LogisticRegression(C=1 / (n * weight_decay)).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from eval.probes import Probes, loss_fn, moments, standardize
from sp_jax import progress

# A fit has converged where no entry of the gradient is larger: ten times less than
# scikit-learn's default asks, ten times more than the rounding of float32.
TOLERANCE = 1e-5
MAX_ITERATIONS = 1000


def fit_lbfgs(
    features: np.ndarray, labels: np.ndarray, weight_decays: Any, *, num_classes: int
) -> tuple[Probes, np.ndarray]:
    """Fit G probes to features float [n, D] with labels int [n], one for each weight decay.

    These are above 0: without one the optimum may be at infinity.

    Returns:
      The probes, and bool [G]: whether each converged in `MAX_ITERATIONS`.
    """
    mean, scale = moments(features)
    with jax.transfer_guard("allow"):
        x = jax.device_put(standardize(features, mean, scale))
        target = jax.nn.one_hot(np.asarray(labels, np.int32), num_classes)
        decays = list(np.asarray(weight_decays, np.float32))
        # One after the other: under vmap each line search takes both sides of its branches,
        # and all fits wait for the slowest, ten times slower on a CPU.
        fits = [
            jax.block_until_ready(_fit(x, target, decay))
            for decay in progress.track(decays, "L-BFGS", "weight decays")
        ]
        kernel, bias, converged = map(jnp.stack, zip(*fits, strict=True))
    return Probes(mean, scale, kernel, bias), np.asarray(converged)


@jax.jit
def _fit(
    x: jax.Array, target: jax.Array, weight_decay: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Kernel [D, C], bias [C] and whether the fit converged."""
    loss = functools.partial(loss_fn, x=x, target=target, weight_decay=weight_decay)
    optimizer = optax.lbfgs(memory_size=20)
    value_and_grad = optax.value_and_grad_from_state(loss)

    def largest(state: Any) -> jax.Array:
        gradient = optax.tree.get(state, "grad")
        return jnp.max(jnp.array([jnp.abs(g).max() for g in gradient]))

    def goes_on(carry: Any) -> jax.Array:
        _, state, number = carry
        unfinished = (number == 0) | (largest(state) > TOLERANCE)
        return unfinished & (number < MAX_ITERATIONS)

    def iterate(carry: Any) -> Any:
        weights, state, number = carry
        value, grad = value_and_grad(weights, state=state)
        found = {"value": value, "grad": grad, "value_fn": loss}
        updates, state = optimizer.update(grad, state, weights, **found)
        return optax.apply_updates(weights, updates), state, number + 1

    weights = jnp.zeros((x.shape[1], target.shape[1])), jnp.zeros(target.shape[1])
    carry = weights, optimizer.init(weights), 0
    (kernel, bias), state, _ = jax.lax.while_loop(goes_on, iterate, carry)
    return kernel, bias, largest(state) <= TOLERANCE
