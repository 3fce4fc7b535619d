"""Heads against torch's own layers on the same random weights, in train mode."""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sp_jax.models import MLP, DINOHead, SimCLRHead
from tests.torchvision_ref import torch

N, D = 16, 12
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}


class Unit(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.normalize(x, dim=-1)


def norm(width, scale=True, bias=True):
    layer = torch.nn.BatchNorm1d(width)
    layer.weight = layer.weight if scale else None
    layer.bias = layer.bias if bias else None
    return layer


def sequential(**layers):
    return torch.nn.Sequential(OrderedDict(layers))


def draw(params):
    """Random weights of a trained network's size."""
    rng = np.random.default_rng(0)

    def leaf(path, x):
        noise = rng.normal(size=x.shape)
        size = {"kernel": noise / x.shape[0] ** 0.5, "scale": 1 + 0.2 * noise}
        return np.float32(size.get(path[-1].key, 0.1 * noise))

    return jax.tree.map_with_path(leaf, params)


def torch_name(module, leaf):
    if module != "last_layer":
        return f"{module}.{LEAVES[leaf]}"
    # Weight norm: a length (original0) and a direction (original1) a row.
    return f"last_layer.parametrizations.weight.original{int(leaf == 'kernel')}"


def as_torch(value, leaf, module):
    if leaf == "kernel":
        return value.T
    return value[:, None] if module == "last_layer" else value


def compare(head, network, frozen=()):
    """Output, every gradient and the running statistics; both have the same parameters."""
    x = np.random.default_rng(1).normal(size=(N, D)).astype(np.float32)
    variables = head.init(jax.random.key(0), x, False)
    params, stats = draw(variables["params"]), variables.get("batch_stats", {})
    theirs = dict(network.named_parameters())
    flat = {(m, k): v for m, leaves in params.items() for k, v in leaves.items()}
    assert {torch_name(*path) for path in flat} == set(theirs) - set(frozen)
    with torch.no_grad():
        for (m, k), value in flat.items():
            theirs[torch_name(m, k)].copy_(torch.tensor(as_torch(value, k, m)))

    images = torch.tensor(x, requires_grad=True)
    want = network.train()(images)
    weights = np.random.default_rng(2).normal(size=want.shape).astype(np.float32)
    (want * torch.tensor(weights)).sum().backward()

    def loss(params, x):
        out, state = head.apply(
            {"params": params, "batch_stats": stats}, x, True, mutable=["batch_stats"]
        )
        return jnp.sum(out * weights), (out, state.get("batch_stats", {}))

    grads, (got, state) = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)
    pairs = [(got, want.detach(), "output"), (grads[1], images.grad, "input")]
    for m, k in flat:
        name = torch_name(m, k)
        pairs.append((as_torch(grads[0][m][k], k, m), theirs[name].grad, name))
    for m, leaves in state.items():
        for k, value in leaves.items():
            pairs.append((value, network.get_buffer(f"{m}.running_{k}"), f"{m}.{k}"))
    for got, want, name in pairs:
        atol = 1e-5 * max(1.0, float(want.abs().max()))
        np.testing.assert_allclose(got, want, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize(
    "hidden_bias, last_bias, hidden_norm, last_norm",
    [
        (True, True, True, "none"),  # SwAV, DeepCluster
        (True, False, True, "none"),  # BYOL, VICReg
        (False, True, True, "none"),  # SimSiam's predictor
        (False, False, True, "none"),  # Barlow Twins
        (False, False, True, "plain"),  # SimSiam, MoCo v3
        (False, False, True, "affine"),
        (True, True, False, "none"),  # MoCo v2, PIRL
    ],
)
def test_mlp(hidden_bias, last_bias, hidden_norm, last_norm):
    widths = (10, 9, 8)
    layers, fan_in = {}, D
    for i, width in enumerate(widths):
        last = i == 2
        bias = last_bias if last else hidden_bias
        layers[f"dense{i}"] = torch.nn.Linear(fan_in, width, bias=bias)
        if not last and hidden_norm:
            layers[f"bn{i}"] = norm(width)
        if not last:
            layers[f"relu{i}"] = torch.nn.ReLU()
        fan_in = width
    if last_norm != "none":
        layers["bn2"] = torch.nn.BatchNorm1d(8, affine=last_norm == "affine")
    head = MLP(widths, hidden_bias, last_bias, hidden_norm, last_norm)
    compare(head, sequential(**layers))


def test_simclr():
    network = sequential(
        dense0=torch.nn.Linear(D, D, bias=False),
        bn0=norm(D),
        relu0=torch.nn.ReLU(),
        dense1=torch.nn.Linear(D, D, bias=False),
        bn1=norm(D),
        relu1=torch.nn.ReLU(),
        dense2=torch.nn.Linear(D, 8, bias=False),
        bn2=norm(8, bias=False),
    )
    compare(SimCLRHead(8, layers=3), network)


@pytest.mark.parametrize("hidden_norm", [False, True])
@pytest.mark.parametrize("norm_last_layer", [False, True])
def test_dino(hidden_norm, norm_last_layer):
    last = torch.nn.utils.parametrizations.weight_norm(
        torch.nn.Linear(6, 20, bias=False)
    )
    length = last.parametrizations.weight.original0
    torch.nn.init.ones_(length)
    layers = dict(
        dense0=torch.nn.Linear(D, 10),
        bn0=norm(10) if hidden_norm else torch.nn.Identity(),
        gelu0=torch.nn.GELU(),
        dense1=torch.nn.Linear(10, 10),
        bn1=norm(10) if hidden_norm else torch.nn.Identity(),
        gelu1=torch.nn.GELU(),
        dense2=torch.nn.Linear(10, 6),
        unit=Unit(),
        last_layer=last,
    )
    head = DINOHead(20, 10, 6, norm_last_layer, hidden_norm)
    frozen = [torch_name("last_layer", "scale")] if norm_last_layer else []
    compare(head, sequential(**layers), frozen)


def test_logits_of_dino_are_cosines():
    head = DINOHead(20, 10, 6)
    x = 1000 * np.random.default_rng(1).normal(size=(N, D)).astype(np.float32)
    params = draw(head.init(jax.random.key(0), x, False)["params"])
    logits = head.apply({"params": params}, x, False)
    # Unit rows in a space of 6 dimensions: a cosine has the variance 1 / 6.
    assert 0.5 < np.abs(logits).max() <= 1 + 1e-6
