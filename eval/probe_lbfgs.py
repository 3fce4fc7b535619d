"""Multinomial logistic regression to its optimum, by L-BFGS on all rows at once.

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
        kernel, bias, converged = _fit(
            jax.device_put(standardize(features, mean, scale)),
            jax.device_put(np.asarray(labels, np.int32)),
            np.asarray(weight_decays, np.float32),
            num_classes=num_classes,
        )
    return Probes(mean, scale, kernel, bias), np.asarray(converged)


@functools.partial(jax.jit, static_argnames="num_classes")
def _fit(
    x: jax.Array, labels: jax.Array, weight_decays: jax.Array, *, num_classes: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Kernels [G, D, C], biases [G, C] and whether each converged [G]."""
    target = jax.nn.one_hot(labels, num_classes)
    optimizer = optax.lbfgs(memory_size=20)

    def fit(weight_decay: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        loss = functools.partial(loss_fn, x=x, target=target, weight_decay=weight_decay)
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

        weights = jnp.zeros((x.shape[1], num_classes)), jnp.zeros(num_classes)
        carry = weights, optimizer.init(weights), 0
        (kernel, bias), state, _ = jax.lax.while_loop(goes_on, iterate, carry)
        return kernel, bias, largest(state) <= TOLERANCE

    # One after the other: under vmap each line search takes both sides of its branches, and
    # all fits wait for the slowest, ten times slower on a CPU.
    return jax.lax.map(fit, weight_decays)
