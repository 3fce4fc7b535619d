"""Chunks and rematerialisation: less memory for the same gradient."""

import functools
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.training import kept_bytes
from configs import common
from sp_jax import methods, models
from sp_jax.errors import UserError
from sp_jax.methods.base import features_by_size
from sp_jax.models import Chunked, resnet
from sp_jax.models.vit import ViT
from sp_jax.sharding import by_batch, make_mesh, replicated
from sp_jax.validate import check_devices
from tests.methods.build import apart, shallow_resnet

BATCH, CHUNKS, SIZE = 16, 4, 16
WHOLE, SMALL, JIGSAW = (SIZE, SIZE, 3), (8, 8, 3), (9, 8, 8, 3)
VIT = functools.partial(ViT, dim=32, depth=1, heads=2, patch_size=8, image_size=SIZE)


@pytest.fixture(autouse=True, scope="module")
def _shallow():
    with shallow_resnet():
        yield


def narrow_resnet(**options):
    return models.get("resnet18", width=4, zero_init_residual=False, **options)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def drawn(shapes):
    """Random variables of the given shapes, which need no compilation."""
    rng = np.random.default_rng(1)

    def draw(path, x):
        value = 0.2 * rng.normal(size=x.shape)
        return np.asarray(value + (path[-1].key in ("scale", "var")), x.dtype)

    return jax.tree.map_with_path(draw, shapes)


def relative(a, b):
    """The largest difference of two trees beside the largest value of the second."""
    return apart(a, b) / max(np.abs(x).max() for x in jax.tree.leaves(b))


def make_gradient(name, backbone, batch_size=BATCH, **options):
    """A method and `gradient(variables, views) -> gradient, new batch statistics`."""
    run = methods.RunSize(20, 4, batch_size, num_images=BATCH)
    method = methods.get(name).create(backbone, run, **options)

    @jax.jit
    def gradient(variables, views):
        params, state = variables
        index = jnp.tile(jnp.arange(batch_size)[:, None], len(views))
        label = jnp.arange(batch_size)
        batch = methods.Batch(views, index, label, 0)
        loss = jax.grad(method.loss, has_aux=True)
        grads, out = loss(params, state, batch, jax.random.key(1))
        return grads, out.state["batch_stats"]

    return method, gradient


def variables_of(method, views):
    return drawn(jax.eval_shape(method.init, jax.random.key(0), views))


METHODS = {
    "simclr": ((WHOLE,) * 2, {}),
    "vicreg": ((WHOLE,) * 2, {"projection_dim": 32}),
    "barlow_twins": ((WHOLE,) * 2, {"projection_dim": 32}),
    # Forwards with other numbers of rows for a pair: crops of two sizes, patches.
    "dino": ((WHOLE, WHOLE, SMALL), {"out_dim": 32, "hidden_dim": 32}),
    "pirl": ((WHOLE, JIGSAW), {"num_negatives": 16}),
}


@pytest.mark.parametrize("name", METHODS)
def test_gradient_of_the_whole_batch(name):
    """Exact for losses that couple the batch; heads normalise over all of it."""
    shapes, options = METHODS[name]
    views = [noise(BATCH, *shape, seed=i) for i, shape in enumerate(shapes)]
    method, full = make_gradient(name, VIT(), **options)
    _, cached = make_gradient(name, Chunked(VIT(), CHUNKS, BATCH), **options)
    variables = variables_of(method, views)
    expected, stats = full(variables, views)
    grads, new_stats = cached(variables, views)
    assert relative(grads, expected) < 1e-5
    if stats:
        assert relative(new_stats, stats) < 1e-5
    if name == "simclr":  # the sum over small batches is something else
        _, small = make_gradient(name, VIT(), BATCH // CHUNKS, **options)
        parts = [
            small(variables, [v[c::CHUNKS] for v in views])[0] for c in range(CHUNKS)
        ]
        added = jax.tree.map(lambda *g: sum(g) / CHUNKS, *parts)
        assert relative(added, expected) > 0.1


class GroupedBatchNorm(nn.Module):
    """Pair p is normalised with the pairs of its chunk, p % CHUNKS; by autodiff."""

    scale_init: Any = None
    rectify: bool = False

    @nn.compact
    def __call__(self, x, train):
        assert train
        c = x.shape[-1]
        scale, bias = (
            self.param(name, nn.initializers.zeros, (c,)) for name in ("scale", "bias")
        )
        old_mean, old_var = (
            self.variable("batch_stats", name, jnp.zeros, (c,))
            for name in ("mean", "var")
        )
        groups = x.reshape(BATCH // CHUNKS, CHUNKS, -1, *x.shape[1:])
        axes = (0, 2, 3, 4)
        mean = jnp.mean(groups, axes, keepdims=True)
        var = jnp.mean((groups - mean) ** 2, axes, keepdims=True)
        count = groups.size // (CHUNKS * c)
        old_mean.value = 0.9 * old_mean.value + 0.1 * mean.reshape(-1, c).mean(0)
        unbiased = var.reshape(-1, c).mean(0) * count / (count - 1)
        old_var.value = 0.9 * old_var.value + 0.1 * unbiased
        y = (groups - mean) / jnp.sqrt(var + 1e-5)
        y = y.reshape(x.shape) * scale + bias
        return nn.relu(y) if self.rectify else y


def backbone_gradient(backbone, variables, x, weights, **kwargs):
    """Gradient of a loss that couples all rows; also features and statistics."""

    def loss(params):
        h, new = backbone.apply(
            {**variables, "params": params},
            x,
            True,
            method=features_by_size,
            mutable=["batch_stats"],
            **kwargs,
        )
        return jnp.sum(jnp.tanh(h @ h.T) * weights), (h, new)

    return jax.grad(loss, has_aux=True)(variables["params"])


def shapes_of(backbone):
    init = functools.partial(backbone.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), noise(2, *WHOLE))


@pytest.mark.slow
def test_batch_normalisation_sees_a_chunk(monkeypatch):
    """A plain forward, with groups in each normalisation, gives the same."""
    resnet18 = narrow_resnet()
    variables = drawn(shapes_of(resnet18))
    # Two views of a pair, then three small crops: the statistics move twice.
    x = [noise(2 * BATCH, *WHOLE), noise(3 * BATCH, *SMALL)]
    arrays = variables, x, noise(5 * BATCH, 5 * BATCH)
    chunked = Chunked(resnet18, CHUNKS, BATCH)
    grads, (h, new) = jax.jit(functools.partial(backbone_gradient, chunked))(*arrays)
    monkeypatch.setattr(resnet, "BatchNorm", GroupedBatchNorm)
    expected, (expected_h, expected_new) = jax.jit(
        functools.partial(backbone_gradient, resnet18)
    )(*arrays)
    assert relative(h, expected_h) < 1e-4
    assert relative(new, expected_new) < 1e-5
    assert relative(grads, expected) < 1e-3


@pytest.mark.parametrize(
    "make", [narrow_resnet, functools.partial(VIT, depth=2, drop_path=0.5)]
)
def test_rematerialisation_changes_nothing(make):
    """Names, features, statistics, gradients; the masks of stochastic depth."""
    plain, remat = make(), make(remat=True)
    assert shapes_of(remat) == shapes_of(plain)
    variables = drawn(shapes_of(plain))
    rngs = {"drop_path": jax.random.key(3)}
    expected, got = (
        jax.jit(functools.partial(backbone_gradient, m, rngs=rngs))(
            variables, noise(BATCH, *WHOLE), noise(BATCH, BATCH)
        )
        for m in (plain, remat)
    )
    assert relative(got, expected) < 1e-5


def test_variables_and_evaluation_are_those_without_chunks():
    """So a checkpoint is read with and without."""
    plain = narrow_resnet()
    chunked = Chunked(plain, CHUNKS, BATCH)
    assert shapes_of(chunked) == shapes_of(plain)
    variables = drawn(shapes_of(plain))
    x = noise(3, *WHOLE)  # any number of images
    np.testing.assert_array_equal(
        chunked.apply(variables, x, False), plain.apply(variables, x, False)
    )


def test_stochastic_depth_draws_for_each_chunk():
    vit = VIT(depth=2, drop_path=0.5)
    x = np.tile(noise(1, *WHOLE), (BATCH, 1, 1, 1))
    h = Chunked(vit, BATCH, BATCH).apply(
        drawn(shapes_of(vit)), x, True, rngs={"drop_path": jax.random.key(0)}
    )
    assert len(np.unique(np.asarray(h), axis=0)) > 1


def test_devices_take_their_own_rows():
    """Eight devices give the gradient of one, and no image moves between them."""
    pairs, rows = 32, 64
    backbone = Chunked(narrow_resnet(), CHUNKS, pairs)
    variables = drawn(shapes_of(backbone))
    arrays = variables, noise(rows, *WHOLE), noise(rows, rows)
    results = []
    for devices in (1, 8):
        mesh = make_mesh(jax.devices()[:devices])
        shardings = replicated(mesh), by_batch(mesh), replicated(mesh)
        step = jax.jit(
            functools.partial(backbone_gradient, backbone),
            in_shardings=shardings,
            out_shardings=(replicated(mesh), (by_batch(mesh), replicated(mesh))),
        )
        program = step.lower(*arrays).compile()
        results.append(jax.device_get(program(*jax.device_put(arrays, shardings))))
    assert relative(results[1], results[0]) < 1e-4
    # What is gathered are the features for the loss.
    pattern = r"= (\w+\[[\d,]*\])\S* (?:all-gather|all-to-all|collective-permute)\("
    moved = re.findall(pattern, program.as_text())
    assert set(moved) == {f"f32[32,{rows}]"}


@pytest.mark.slow
def test_what_the_forward_keeps():
    """Bytes between the two passes, by the options of the config."""

    def kept(name, **options):
        config = common.get_config()
        config.model = {"name": name, **options}
        config.batch_size = BATCH
        return kept_bytes(config, methods.RunSize(1000, 10, BATCH, num_images=10_000))

    images = 2 * BATCH * 64 * 64 * 3 * 4
    for name in ("vit_tiny", "resnet18"):
        plain = kept(name)
        assert kept(name, chunks=1) == plain
        assert kept(name, remat=True) < 0.7 * plain, name
        # The images, and nothing of the backbone.
        assert kept(name, chunks=CHUNKS) < images + plain / 20, name


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="chunks is 3: .* divides the batch size 8"):
        Chunked(VIT(), 3, 8)
    chunked = Chunked(VIT(), 4, 8)
    with pytest.raises(ValueError, match="12 images .* 8 pairs"):
        chunked.apply(drawn(shapes_of(VIT())), noise(12, *WHOLE), True)
    with pytest.raises(ValueError, match="bn_groups .* chunks would cut them"):
        make_gradient("moco_v2", chunked, queue_size=BATCH)
    with pytest.raises(ValueError, match="remat is 'no'"):
        models.get("vit_tiny", remat="no")
    with pytest.raises(UserError, match="chunks is 4.*multiple of 32"):
        check_devices(16, 8, 4)
    check_devices(32, 8, 4)
