"""SupCon: SimCLR's network, and positives by the labels of the pairs."""

import numpy as np
import pytest

from sp_jax import losses
from sp_jax.models import SimCLRHead
from tests.methods.build import apart, make, silent

OPTIONS = {"temperature": 0.3, "projection_dim": 16}


@pytest.fixture(scope="module")
def cases():
    return {name: make(name, **OPTIONS) for name in ("supcon", "simclr")}


@pytest.mark.parametrize("label", [np.full(8, -1), np.arange(8)])
def test_without_a_shared_label_it_is_simclr(cases, label):
    label = label.astype(np.int32)
    (value, out), grads = cases["supcon"].step(label=label)
    (want, simclr), want_grads = cases["simclr"].step()
    assert float(value) == pytest.approx(float(want), rel=1e-5)
    assert apart(grads, want_grads) < 1e-4
    assert apart(out.state, simclr.state) < 1e-5
    assert float(out.metrics["positives"]) == 1


def test_loss_is_supcon_of_one_joint_forward(cases):
    case = cases["supcon"]
    (value, out), grads = case.step()
    assert out.features.shape == (8, 2, 32) and not silent(grads)
    variables = {
        "params": case.params["projector"],
        "batch_stats": case.state["batch_stats"]["projector"],
    }
    z, _ = SimCLRHead(16, 3).apply(
        variables, out.features.reshape(16, 32), True, mutable=["batch_stats"]
    )
    z = z.reshape(8, 2, 16)
    want = losses.supcon(z[:, 0], z[:, 1], case.label, 0.3)
    assert float(value) == pytest.approx(float(want), rel=1e-4)
    assert float(value) != pytest.approx(float(cases["simclr"].step()[0][0]), rel=1e-3)
    # Labels 0, 1 and 2 come 3, 2 and 1 times; two pairs have none.
    assert float(out.metrics["positives"]) == (3 * 5 + 2 * 3 + 1 + 2) / 8
    (swapped, _), _ = case.step(views=case.views[::-1])
    assert float(swapped) == pytest.approx(float(value), rel=1e-4)
