"""The effect of labels on SupCon: none gives NT-Xent, and their numbering does not matter.

Values and gradients are held to a reference in test_parity.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sp_jax.losses import nt_xent, supcon
from tests.torchvision_ref import torch

LABEL = np.array([0, 0, -1, 1, 0, -1, 1, 3])


def views(seed):
    return np.random.default_rng(seed).normal(size=(2, 8, 6)).astype(np.float32)


@pytest.mark.parametrize(
    "label", [np.arange(8), np.full(8, -1), np.array([3, -1, 0, -1, -7, 5, -7, 1])]
)
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_without_a_shared_label_it_is_nt_xent(label, temperature):
    ours = jax.value_and_grad(supcon, argnums=(0, 1))
    theirs = jax.value_and_grad(nt_xent, argnums=(0, 1))
    value, grads = ours(*views(0), label, temperature)
    want, want_grads = theirs(*views(0), temperature)
    assert float(value) == pytest.approx(float(want), rel=1e-6)
    for got, expected in zip(grads, want_grads, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31))
def test_order_names_scale_and_exchanged_views_do_not_matter(seed):
    z1, z2 = views(seed)
    loss = float(supcon(z1, z2, LABEL))
    order = np.random.default_rng(seed).permutation(8)
    renamed = np.where(LABEL < 0, -5, 40 - LABEL)
    # Within one class any view may take the place of any other.
    members = np.flatnonzero(LABEL == 0)
    moved = z2.copy()
    moved[members] = z2[np.roll(members, 1)]
    for case in (
        (z1[order], z2[order], LABEL[order]),
        (z2, z1, LABEL),
        (7 * z1, z2 / 3, LABEL),
        (z1, z2, renamed),
        (z1, moved, LABEL),
    ):
        assert float(supcon(*case)) == pytest.approx(loss, rel=1e-5)


def test_without_labels_a_view_belongs_to_its_image():
    z1, z2 = views(0)
    none = jnp.full(8, -1)
    moved = float(supcon(z1, np.roll(z2, 1, axis=0), none))
    assert abs(moved - float(supcon(z1, z2, none))) > 0.1


def test_a_class_is_drawn_into_one_point():
    """Where SupCon has its minimum NT-Xent spreads the members of a class."""
    label = np.repeat([0, 1], 4)
    corners = np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32)[label]
    value, gradient = jax.value_and_grad(supcon)(corners, corners, label)
    assert float(value) == pytest.approx(np.log(7 + 8 * np.exp(-20)), rel=1e-5)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
    assert float(nt_xent(corners, corners)) == pytest.approx(float(value), rel=1e-5)
    spread = corners + np.float32([0.0, 0.3]) * (np.arange(8) % 2)[:, None]
    assert float(supcon(spread, spread, label)) > float(value) + 0.01
    assert float(nt_xent(spread, spread)) < float(value) - 0.1


def torch_supcon(z1, z2, label, temperature):
    """The formula by PyTorch's autograd: the cross entropy with uniform targets."""
    u = torch.nn.functional.normalize(torch.cat([z1, z2]))
    logits = u @ u.T / temperature
    logits = logits.masked_fill(torch.eye(len(u), dtype=torch.bool), -1e9)
    label = torch.tensor(label).repeat(2)
    targets = (label[:, None] == label).float().fill_diagonal_(0)
    targets = targets / targets.sum(1, keepdim=True)
    return torch.nn.functional.cross_entropy(logits, targets)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_against_pytorch(temperature):
    label = np.array([0, 0, 2, 1, 0, 4, 1, 3])
    z1, z2 = views(3)
    a, b = (torch.tensor(z, requires_grad=True) for z in (z1, z2))
    expected = torch_supcon(a, b, label, temperature)
    expected.backward()
    value, grads = jax.value_and_grad(supcon, argnums=(0, 1))(
        z1, z2, label, temperature
    )
    assert float(value) == pytest.approx(expected.item(), rel=1e-5)
    for got, tensor in zip(grads, (a, b), strict=True):
        np.testing.assert_allclose(got, tensor.grad, atol=1e-5)


def test_bfloat16_zero_rows_and_shapes():
    z1, z2 = (jnp.asarray(z, jnp.bfloat16) for z in views(0))
    value = supcon(z1, z2, LABEL)
    assert value.dtype == jnp.float32
    wide = supcon(z1.astype(jnp.float32), z2.astype(jnp.float32), LABEL)
    assert float(value) == float(wide)
    value, grads = jax.value_and_grad(supcon, argnums=(0, 1))(
        jnp.zeros((8, 3)), jnp.ones((8, 3)), LABEL
    )
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in grads)
    with pytest.raises(ValueError, match=r"\(8, 3\) and \(5, 3\)"):
        supcon(jnp.zeros((8, 3)), jnp.zeros((5, 3)), LABEL)
    with pytest.raises(ValueError, match=r"each of 8 rows, not \(7,\)"):
        supcon(jnp.zeros((8, 3)), jnp.zeros((8, 3)), LABEL[:7])
