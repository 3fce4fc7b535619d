"""ResNets against torchvision's, on the same random weights: forward, backward, statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sp_jax import models, weights
from sp_jax.models.layers import Conv, max_pool
from sp_jax.models.resnet import BasicBlock, Bottleneck, ResNet
from tests.torchvision_ref import torch, torchvision


def to_torch(backbone, variables, network):
    """Copy flax variables into a torchvision ResNet, without its classifier."""
    network.fc = torch.nn.Identity()
    state = weights.to_torch(backbone, variables)
    network.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
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


def random_variables(backbone, x):
    """Variables for images x, drawn without compiling an init."""
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
    return variables


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_equals_torchvision_in_float32(name):
    backbone = models.get(name)
    x = np.random.default_rng(1).normal(size=(16, 64, 64, 3)).astype(np.float32)
    variables = random_variables(backbone, x)
    network = to_torch(backbone, variables, getattr(torchvision.models, name)())
    images = torch.from_numpy(x.transpose(0, 3, 1, 2))

    expected = network.eval()(images).detach().numpy()
    got = jax.jit(lambda v: backbone.apply(v, x, False))(variables)
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())

    expected = network.train()(images).detach().numpy()
    apply = jax.jit(lambda v: backbone.apply(v, x, True, mutable=["batch_stats"])[0])
    # Rounding: each of 53 normalisations divides by statistics of its own. The next
    # test shows that nothing but rounding is left.
    np.testing.assert_allclose(
        apply(variables), expected, atol=2e-4 * np.abs(expected).max()
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_equals_torchvision_in_float64(name):
    """Outputs, every gradient and every running statistic, in train mode."""
    x = np.random.default_rng(1).normal(size=(8, 64, 64, 3))
    backbone = models.get(name)
    variables = random_variables(backbone, x.astype(np.float32))
    network = to_torch(backbone, variables, getattr(torchvision.models, name)())
    network.double().train()
    out = network(torch.from_numpy(x.transpose(0, 3, 1, 2)))
    weights = np.random.default_rng(3).normal(size=out.shape)
    (out * torch.from_numpy(weights)).sum().backward()

    with jax.enable_x64(True):
        backbone = models.get(name, dtype=jnp.float64)
        wide = jax.tree.map(lambda v: np.asarray(v, np.float64), variables)

        def loss(params):
            h, state = backbone.apply(
                {**wide, "params": params}, x, True, mutable=["batch_stats"]
            )
            return jnp.sum(h * weights), (h, state)

        grads, (h, state) = jax.device_get(
            jax.jit(jax.grad(loss, has_aux=True))(wide["params"])
        )
    np.testing.assert_allclose(h, out.detach().numpy(), rtol=1e-9, atol=1e-9)
    # Leaf by leaf through the names: torch's parameters hold the other side.
    theirs = {name: p.grad.numpy() for name, p in network.named_parameters()}
    theirs |= {k: b.numpy() for k, b in network.named_buffers() if "running" in k}
    ours = {**grads, "stats": state["batch_stats"]}
    checked = 0
    for path, got in jax.tree_util.tree_flatten_with_path(ours)[0]:
        keys = [p.key for p in path]
        stats = keys[0] == "stats"
        want = theirs[dotted(keys[1:] if stats else keys)]
        want = want.transpose(2, 3, 1, 0) if want.ndim == 4 else want
        error = np.abs(got - want).max() / np.abs(want).max()
        assert error < 1e-7, (path, error)
        checked += 1
    assert checked == len(theirs)


def dotted(keys):
    """["layer1_0", "downsample_1", "scale"] to torchvision's name of it."""
    *modules, leaf = keys
    names = {"mean": "running_mean", "var": "running_var", "bias": "bias"}
    leaf = names.get(leaf, "weight")
    return ".".join([*(m.replace("_", ".") for m in modules), leaf])


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_parameters_are_torchvisions(name):
    with torch.device("meta"):
        network = getattr(torchvision.models, name)()
    theirs = {n: tuple(p.shape) for n, p in network.named_parameters()}
    del theirs["fc.weight"], theirs["fc.bias"]
    backbone = models.get(name)
    params = jax.eval_shape(
        lambda: backbone.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), False)
    )["params"]
    ours = {}
    for path, p in jax.tree_util.tree_flatten_with_path(params)[0]:
        shape = p.shape if p.ndim == 1 else tuple(p.shape[i] for i in (3, 2, 0, 1))
        ours[dotted([part.key for part in path])] = shape
    assert ours == theirs


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


@pytest.mark.parametrize("block, last", [(BasicBlock, "bn2"), (Bottleneck, "bn3")])
@pytest.mark.parametrize("zero", [True, False])
def test_zero_init_is_of_the_last_scale_of_each_block(block, last, zero):
    backbone = ResNet((2, 1), block, width=4, zero_init_residual=zero)
    params = backbone.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), False)
    zeros = set()
    for path, p in jax.tree_util.tree_flatten_with_path(params["params"])[0]:
        *module, leaf = (part.key for part in path)
        if leaf == "scale" and np.all(p == 0.0):
            zeros.add("/".join(module))
        elif leaf == "scale":
            assert np.all(p == 1.0), module
    blocks = ("layer1_0", "layer1_1", "layer2_0")
    assert zeros == ({f"{b}/{last}" for b in blocks} if zero else set())


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
    """Values and gradients, with ties (of zeros, as after a ReLU) and a NaN."""
    x = np.random.default_rng(0).normal(size=(2, size, size, 3)).round(1)
    x = np.maximum(x, 0).astype(np.float32)
    x[1, 3, 4, 0] = np.nan
    of_torch = torch.from_numpy(x).requires_grad_()
    expected = torch.nn.functional.max_pool2d(
        of_torch.permute(0, 3, 1, 2), 3, 2, 1
    ).permute(0, 2, 3, 1)
    weight = np.random.default_rng(1).normal(size=expected.shape).astype(np.float32)
    expected.backward(torch.from_numpy(weight))
    y, vjp = jax.vjp(max_pool, jnp.asarray(x))
    np.testing.assert_array_equal(y, expected.detach())
    np.testing.assert_allclose(vjp(weight)[0], of_torch.grad, rtol=1e-6, atol=1e-6)


def test_unknown_names():
    with pytest.raises(ValueError, match="no backbone 'resnet19'.*resnet18"):
        models.get("resnet19")
    with pytest.raises(ValueError, match="no stem 'tiny'"):
        models.get("resnet18", stem="tiny")
