"""Schedules and optimisers against their formulas."""

import jax.numpy as jnp
import numpy as np
import pytest

from sp_jax import optim

PARAMS = {
    "dense": {
        "kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]),
        "bias": jnp.array([4.0, 1.0]),
    },
    "bn": {"scale": jnp.array([1.0, 2.0])},
}
GRADS = {
    "dense": {
        "kernel": jnp.array([[0.1, 0.2], [-0.3, 0.4]]),
        "bias": jnp.array([0.5, 0.5]),
    },
    "bn": {"scale": jnp.array([0.2, -0.1])},
}


def run(name, steps=3, **options):
    """Apply the same gradient; return the parameters as numpy."""
    schedule = lambda step: 0.1 * (step + 1.0)  # noqa: E731
    tx = optim.get(name, schedule, **options)
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(steps):
        updates, state = tx.update(GRADS, state, params)
        params = {
            k: {n: params[k][n] + u for n, u in v.items()} for k, v in updates.items()
        }
    return params


def by_hand(name, leaf, w, g, steps=3, decay=0.01, momentum=0.9):
    w, g, v = np.float64(w), np.float64(g), 0.0
    for step in range(steps):
        lr = 0.1 * (step + 1)
        if leaf == "kernel":
            d = g + decay * w
            if name == "lars":
                d = d * 0.001 * np.linalg.norm(w) / np.linalg.norm(d)
        else:
            d = g  # neither decayed nor adapted
        if name == "lars":  # SimCLR's dialect: the rate is inside the momentum
            v = momentum * v + lr * d
            w = w - v
        else:
            v = momentum * v + d
            w = w - lr * v
    return w


@pytest.mark.parametrize("name", ["lars", "sgd"])
def test_parameter_rules(name):
    params = run(name, weight_decay=0.01)
    for module, leaves in params.items():
        for leaf, got in leaves.items():
            want = by_hand(name, leaf, PARAMS[module][leaf], GRADS[module][leaf])
            np.testing.assert_allclose(got, want, rtol=1e-5, err_msg=f"{module}/{leaf}")


def test_adamw_decays_kernels_only():
    with_decay = run("adamw", weight_decay=0.5)
    without = run("adamw", weight_decay=0.0)
    assert not np.allclose(with_decay["dense"]["kernel"], without["dense"]["kernel"])
    np.testing.assert_array_equal(with_decay["dense"]["bias"], without["dense"]["bias"])
    np.testing.assert_array_equal(with_decay["bn"]["scale"], without["bn"]["scale"])


def test_warmup_and_cosine():
    schedule = optim.warmup_cosine(2.0, total_steps=110, warmup_steps=10)
    got = [float(schedule(step)) for step in range(111)]
    want = [0.2 * s for s in range(10)]
    want += [1 + np.cos(np.pi * s / 100) for s in range(101)]
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert float(optim.warmup_cosine(2.0, 10, 0)(0)) == 2.0
    with pytest.raises(ValueError, match="warm-up"):
        optim.warmup_cosine(1.0, 10, 10)


def test_unknown_optimiser():
    with pytest.raises(ValueError, match="no optimiser 'adam'"):
        optim.get("adam", lambda s: 0.1, weight_decay=0.0)
