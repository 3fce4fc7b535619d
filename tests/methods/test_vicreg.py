"""VICReg: the recipe's rate, and each of its three weights.

The head and the loss with the default weights are tested in `test_siamese.py`.
"""

import jax
import numpy as np
import pytest

from configs.vicreg_resnet50 import get_config
from sp_jax import losses, methods, models
from sp_jax.methods.base import Network, forward
from sp_jax.models import MLP
from sp_jax.recipe import make_optimizer
from tests.methods.build import make


def test_the_recipes_rate():
    run = methods.RunSize(
        total_steps=200, steps_per_epoch=10, batch_size=256, num_images=1
    )
    _, rate = make_optimizer(get_config().to_dict(), run)
    got = [float(rate(step)) for step in (0, 100, 200)]
    np.testing.assert_allclose(got, [0.0, 0.5, 0.5 * 0.001], rtol=1e-5)


@pytest.fixture(scope="module")
def case():
    return make("vicreg", projection_dim=24, invariance=3.0, covariance=7.0)


def test_each_weight_reaches_its_term(case):
    network = Network(models.get("resnet18", width=4), MLP((24,) * 3, last_bias=False))
    run = jax.jit(lambda p, s, v: forward(network, p, s, v, joint=False)[0])
    (_, z1), (_, z2) = run(case.params, case.state["batch_stats"], case.views)
    (value, out), _ = case.step()
    want = losses.vicreg(z1, z2, 3.0, 25.0, 7.0)
    assert float(value) == pytest.approx(float(want), rel=1e-4)
    assert float(value) != pytest.approx(float(losses.vicreg(z1, z2)), rel=0.05)
    std = float(np.mean(np.std(np.asarray(z1), axis=0)))
    assert float(out.metrics["projection_std"]) == pytest.approx(std, rel=1e-3)
