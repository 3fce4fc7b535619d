"""Barlow Twins: the learning rate of biases and normalisations.

The head and the loss are tested in `test_siamese.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.barlow_twins_resnet50 import get_config
from sp_jax import methods, optim
from sp_jax.recipe import make_optimizer
from tests.methods.build import leaves
from tests.methods.recipe_steps import recipe_variables


def test_kernels_decay_and_the_rest_learns_at_its_own_rate():
    rules = methods.get("barlow_twins").RULES
    params, _ = recipe_variables(get_config())
    for name, number in leaves(optim.assign(rules, params)).items():
        rule, kernel = rules[int(number)], name.endswith("/kernel")
        assert (rule.decay, rule.adapt) == (kernel, kernel), name
        assert rule.factor == pytest.approx(1 if kernel else 0.0048 / 0.2), name


def test_the_recipes_first_full_step():
    """Rate of batch 256: 0.4 for kernels (adapted), 0.4 x 0.024 x gradient for biases."""
    config = get_config().to_dict()
    config["optimizer"]["warmup_epochs"] = 0.0
    run = methods.RunSize(
        total_steps=100, steps_per_epoch=10, batch_size=256, num_images=1
    )
    tx, _ = make_optimizer(config, run)
    params = {"bn": {"bias": jnp.array([3.0, 4.0])}, "d": {"kernel": jnp.eye(2)}}
    grads = {"bn": {"bias": jnp.array([1.0, -2.0])}, "d": {"kernel": 5 * jnp.eye(2)}}
    updates, _ = jax.jit(tx.update)(grads, tx.init(params), params)
    np.testing.assert_allclose(
        updates["bn"]["bias"], [-0.4 * 0.024, 0.8 * 0.024], rtol=1e-5
    )
    # |w| / |g + d w| = 1 / (5 + 1e-6), so the step is 0.4 x 0.001 x the unit matrix.
    np.testing.assert_allclose(
        updates["d"]["kernel"], -4e-4 * np.eye(2), rtol=1e-4, atol=1e-12
    )
