"""A method small enough to call in a test, with its parameters, state and one batch."""

import contextlib
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sp_jax import methods, models
from sp_jax.models.resnet import BasicBlock, ResNet

SIZE, IMAGES = 16, 24


@contextlib.contextmanager
def shallow_resnet():
    """Make "resnet18" a network of one block a stage, which compiles in half the time."""
    with pytest.MonkeyPatch.context() as patch:
        make = functools.partial(ResNet, (1, 1, 1, 1), BasicBlock)
        patch.setitem(models.VARIANTS, "resnet18", make)
        yield


class Case(NamedTuple):
    """A method, its variables, and a batch of 8 pairs."""

    method: methods.Method
    params: Any
    state: Any
    views: list
    index: np.ndarray
    label: np.ndarray
    loss: Any  # jitted `Method.loss` -> ((loss, out), grads)

    def step(self, step=0, key=1, **changes):
        case = self._replace(**changes)
        return self.loss(case.params, case.state, case.batch(step), jax.random.key(key))

    def batch(self, step=0):
        return methods.Batch(self.views, self.index, self.label, step)


def make(name, shapes=((SIZE, SIZE, 3),) * 2, run=None, model=None, **options):
    """Build the method `name` on a tiny ResNet; views of noise have the given shapes."""
    model = model or {"name": "resnet18", "width": 4}
    run = run or methods.RunSize(
        total_steps=20, steps_per_epoch=4, batch_size=8, num_images=IMAGES
    )
    method = methods.get(name).create(models.get(**model), run, **options)
    rng = np.random.default_rng(0)
    views = [rng.normal(size=(8, *shape)).astype("float32") for shape in shapes]
    pairs = rng.permutation(IMAGES)[:16].reshape(8, 2).astype("int32")
    index = pairs[:, [v % 2 for v in range(len(shapes))]]
    label = np.array([0, 1, -1, 0, 2, -1, 1, 0], np.int32)
    params, state = jax.jit(method.init)(jax.random.key(0), views)
    loss = jax.jit(jax.value_and_grad(method.loss, has_aux=True))
    return Case(method, params, state, views, index, label, loss)


def unit(x):
    """Rows of length 1."""
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def noisy(tree, scale=0.3):
    """Other weights: normalisation would hide a factor."""
    rng = np.random.default_rng(2)
    return jax.tree.map(
        lambda p: p + scale * rng.normal(size=p.shape).astype("float32"), tree
    )


@jax.jit
def _backbone(params, stats, images):
    return models.get("resnet18", width=4).apply(
        {"params": params, "batch_stats": stats}, images, True, mutable=["batch_stats"]
    )[0]


def features_by_hand(params, stats, views):
    """Features of each view; the views of one size go through the backbone together."""
    features = [None] * len(views)
    for size in {v.shape[1] for v in views}:
        group = [i for i, v in enumerate(views) if v.shape[1] == size]
        h = _backbone(
            params["backbone"],
            stats["backbone"],
            jnp.concatenate([views[i] for i in group]),
        )
        for i, part in zip(group, np.split(np.asarray(h), len(group)), strict=True):
            features[i] = part
    return features


@jax.jit
def stem_mean(params, images):
    """What the first normalisation of the backbone sees on average."""
    out = jax.lax.conv_general_dilated(
        images,
        params["backbone"]["conv1"]["kernel"],
        (2, 2),
        [(3, 3), (3, 3)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return out.mean((0, 1, 2))


def leaves(tree):
    """Name to leaf, as "backbone/conv1/kernel"."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(str(p.key) for p in path): np.asarray(x) for path, x in flat}


def apart(a, b):
    """The largest difference of two trees."""
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: np.abs(x - y).max(), a, b)))


def silent(grads):
    """Names of the parameters without gradient, but for those behind a zero scale."""
    return {
        name
        for name, g in leaves(grads).items()
        if not np.any(g) and not name.startswith("backbone/layer")
    }
