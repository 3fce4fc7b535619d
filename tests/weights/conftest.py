"""Backbones with random values everywhere, so that nothing is hidden by a zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sp_jax.backbone import Backbone
from sp_jax.models.resnet import BasicBlock, Bottleneck, ResNet
from sp_jax.models.vit import ViT
from tests.torchvision_ref import torch

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)
VIT = dict(dim=128, depth=2, heads=2, patch_size=8, image_size=32)
MODULES = {
    "basic": ResNet((1, 2, 1, 1), BasicBlock),
    "bottleneck": ResNet((1, 1, 1, 1), Bottleneck),
    "vit": ViT(**VIT),
}
DATA = {"image_size": 48, "resize": "squash", "split": "train"}


def make(module):
    """A backbone with random variables, as of a run."""
    side = getattr(module, "image_size", 32)
    shapes = jax.eval_shape(
        lambda: module.init(jax.random.key(0), jnp.zeros((1, side, side, 3)), False)
    )
    rng = np.random.default_rng(0)

    def draw(path, x):
        fan_in = np.prod(x.shape[:-1]) if path[-1].key == "kernel" else 25
        noise = rng.normal(size=x.shape) / np.sqrt(fan_in)
        positive = path[-1].key in ("scale", "var")
        return (np.abs(1 + noise) if positive else noise).astype(np.float32)

    variables = {"batch_stats": {}, **jax.tree_util.tree_map_with_path(draw, shapes)}
    info = {"config": {"method": "simclr", "data": DATA}, "step": 70}
    return Backbone(module, variables, 32, MEAN, STD, info)


@pytest.fixture(scope="session")
def backbones():
    return {name: make(module) for name, module in MODULES.items()}


@pytest.fixture(autouse=True)
def _same_start():
    """Libraries draw the values of a new network from this generator."""
    torch.manual_seed(0)


def images():
    return np.random.default_rng(1).integers(0, 256, (8, 32, 32, 3), np.uint8)


def theirs(network, backbone, pick=lambda out: out):
    """Features of another library's network, of the same normalised images."""
    x = torch.from_numpy(np.array(backbone.preprocess(images())))
    with torch.no_grad():
        return pick(network.eval()(x.permute(0, 3, 1, 2))).flatten(1).numpy()


def assert_alike(got, want):
    np.testing.assert_allclose(got, want, atol=1e-4, rtol=1e-4)


def tensors(state):
    return {name: torch.from_numpy(np.array(value)) for name, value in state.items()}


def randomise(network):
    """Other values than those that a library starts with, which are often 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in [*network.parameters(), *network.buffers()]:
            if value.is_floating_point():
                value += 0.1 * torch.rand(value.shape, generator=generator)
    return network
