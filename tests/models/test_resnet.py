"""ResNets against torchvision's, on the same random weights: forward, backward, statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sp_jax import models
from sp_jax.models.layers import Conv, max_pool
from tests.torchvision_ref import torchvision


def to_torch(variables, network):
    """Copy flax variables into a torchvision ResNet by their names."""
    params, stats = variables["params"], variables["batch_stats"]
    state = network.state_dict()
    for name in state:
        *path, leaf = name.split(".")
        if path[0] == "fc" or leaf == "num_batches_tracked":
            continue
        if path[0].startswith("layer"):
            path = [f"{path[0]}_{path[1]}", *path[2:]]
            if path[1] == "downsample":
                path = [path[0], f"downsample_{path[2]}"]
        tree = stats if leaf.startswith("running") else params
        for part in path:
            tree = tree[part]
        keys = {"running_mean": "mean", "running_var": "var", "bias": "bias"}
        key = keys.get(leaf, "kernel" if "kernel" in tree else "scale")
        value = np.array(tree[key])
        value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
        assert state[name].shape == value.shape, name
        state[name] = torch.from_numpy(value)
    network.load_state_dict(state)
    network.fc = torch.nn.Identity()
    return network


def randomise(variables, seed=0):
    """Weights of a trained network's size, so that no term is hidden by a 0 or a 1."""
    rng = np.random.default_rng(seed)

    def draw(path, x):
        name = path[-1].key
        noise = rng.normal(size=x.shape).astype(np.float32)
        if name == "kernel":
            return np.asarray(x) + 0.01 * noise
        if name in ("scale", "var"):
            return (1 + 0.2 * np.tanh(noise)).astype(np.float32)
        return 0.1 * noise

    return jax.tree.map_with_path(draw, variables)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_equals_torchvision(name):
    size = 64
    backbone = models.get(name)
    x = np.random.default_rng(1).normal(size=(16, size, size, 3)).astype(np.float32)
    shapes = jax.eval_shape(lambda: backbone.init(jax.random.key(0), x, False))
    variables = randomise(jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes))
    # Zero kernels plus noise are too small: draw them as the network does.
    rng = np.random.default_rng(2)
    variables["params"] = jax.tree.map(
        lambda v: (
            rng.normal(0, np.sqrt(2 / (v.shape[0] ** 2 * v.shape[3])), v.shape).astype(
                np.float32
            )
            if v.ndim == 4
            else v
        ),
        variables["params"],
    )
    network = to_torch(variables, getattr(torchvision.models, name)())
    images = torch.from_numpy(x.transpose(0, 3, 1, 2))

    network.eval()
    expected = network(images).detach().numpy()
    got = jax.jit(lambda v: backbone.apply(v, x, False))(variables)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(got / scale, expected / scale, atol=1e-5)

    network.train()
    weights = rng.normal(size=expected.shape).astype(np.float32)
    out = network(images)
    (out * torch.from_numpy(weights)).sum().backward()

    def loss(params):
        h, state = backbone.apply(
            {**variables, "params": params}, x, True, mutable=["batch_stats"]
        )
        return jnp.sum(h * weights), (h, state)

    grads, (h, state) = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    expected = out.detach().numpy()
    # In train mode each of 53 normalisations divides by statistics of its own rounding.
    np.testing.assert_allclose(h, expected, atol=2e-4 * np.abs(expected).max())
    for path in ("conv1", "layer1_0/conv2", "layer4_1/conv2", "layer4_0/downsample_0"):
        ours, theirs = grads, network
        for part in path.split("/"):
            ours = ours[part]
            for piece in part.split("_"):
                theirs = getattr(theirs, piece)
        want = theirs.weight.grad.numpy().transpose(2, 3, 1, 0)
        error = np.linalg.norm(ours["kernel"] - want) / np.linalg.norm(want)
        # Rounding flips some ReLUs, and 50 layers spread each flip; a wrong term is
        # off by far more.
        assert error < (2e-3 if name == "resnet18" else 5e-2), (path, error)
    want = network.layer4[1].bn1
    ours = grads["layer4_1"]["bn1"]
    for leaf, tensor in (("scale", want.weight), ("bias", want.bias)):
        want_grad = tensor.grad.numpy()
        error = np.linalg.norm(ours[leaf] - want_grad) / np.linalg.norm(want_grad)
        assert error < (5e-3 if name == "resnet18" else 5e-2), (leaf, error)
    stats = state["batch_stats"]["layer4_1"]["bn1"]
    np.testing.assert_allclose(stats["mean"], want.running_mean, atol=2e-4)
    np.testing.assert_allclose(stats["var"], want.running_var, rtol=1e-3)


def test_small_stem_keeps_the_resolution():
    backbone = models.get("resnet18", stem="small", width=8)
    x = jnp.zeros((2, 32, 32, 3))
    _, state = jax.eval_shape(
        lambda: backbone.init_with_output(
            jax.random.key(0), x, False, capture_intermediates=True, mutable=True
        )
    )
    stages = state["intermediates"]
    shapes = [stages[f"layer{i}_1"]["__call__"][0].shape[1] for i in (1, 2, 3, 4)]
    assert shapes == [32, 16, 8, 4]


def test_zero_init_makes_each_block_the_identity_of_its_shortcut():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 32, 3)), jnp.float32)
    for zero in (True, False):
        backbone = models.get("resnet18", width=8, zero_init_residual=zero)
        params = backbone.init(jax.random.key(0), x, False)["params"]
        assert np.all(params["layer2_1"]["bn2"]["scale"] == (0.0 if zero else 1.0))


@pytest.mark.parametrize("size, kernel, stride", [(2, 3, 1), (3, 3, 2), (2, 3, 2)])
def test_small_maps_equal_the_convolution(size, kernel, stride):
    conv = Conv(5, kernel, stride)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, size, size, 4)), "float32")
    variables = conv.init(jax.random.key(0), x)
    weight = torch.from_numpy(np.array(variables["params"]["kernel"]))
    expected = torch.nn.functional.conv2d(
        torch.from_numpy(np.array(x)).permute(0, 3, 1, 2),
        weight.permute(3, 2, 0, 1),
        stride=stride,
        padding=kernel // 2,
    ).permute(0, 2, 3, 1)
    np.testing.assert_allclose(conv.apply(variables, x), expected, atol=1e-5)


@pytest.mark.parametrize("size", [7, 8, 32])
def test_max_pool(size):
    x = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    expected = torch.nn.functional.max_pool2d(
        torch.from_numpy(x).permute(0, 3, 1, 2), 3, 2, 1
    ).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(max_pool(jnp.asarray(x)), expected)


def test_unknown_names():
    with pytest.raises(ValueError, match="no backbone 'resnet19'.*resnet18"):
        models.get("resnet19")
    with pytest.raises(ValueError, match="no stem 'tiny'"):
        models.get("resnet18", stem="tiny")
