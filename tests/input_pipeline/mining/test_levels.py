"""Levels are whitened means of an encoder's maps, part by part."""

import flax.linen as nn
import jax
import numpy as np
import pytest

import sp_jax
from input_pipeline.mining import levels
from input_pipeline.mining.features import find_features
from sp_jax import models
from sp_jax.backbone import Backbone
from sp_jax.errors import UserError
from sp_jax.models import Facts

SIZE, HALF = 48, (0.5, 0.5, 0.5)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, SIZE, SIZE, 3), np.uint8)
NETWORKS = {
    "resnet": lambda: models.get("resnet18", width=4, stem="imagenet"),
    "vit": lambda: models.get("vit_tiny", patch_size=8, depth=5, image_size=SIZE),
}


class Store:
    """Forty images of noise."""

    name, split, fingerprint = "noise", "all", "0"

    def __len__(self):
        return len(IMAGES)

    def read(self, rows):
        return IMAGES[rows]


def backbone_of(module):
    rng = np.random.default_rng(0)
    x = np.zeros((1, SIZE, SIZE, 3), "float32")
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, False))

    def draw(path, a):
        return 0.2 * rng.normal(size=a.shape) + (path[-1].key in ("scale", "var"))

    variables = jax.tree.map_with_path(draw, shapes)
    return Backbone(module, variables, SIZE, HALF, HALF)


@pytest.mark.parametrize("name", NETWORKS)
def test_levels(name, monkeypatch):
    monkeypatch.setattr(levels, "COMPONENTS", 36)  # More than 80 %: exact.
    backbone = backbone_of(NETWORKS[name]())
    module = backbone.module

    @jax.jit
    def run(images):
        x = backbone.preprocess(images)
        _, state = module.apply(
            backbone.variables, x, False, capture_intermediates=True
        )
        return state["intermediates"]

    names = {
        "resnet": [f"layer{i}_1" for i in (1, 2, 3, 4)],
        "vit": ["block1", "block2", "block3", "block4"],
    }
    assert module.levels() == names[name]
    found = run(IMAGES)
    want = []
    for level in names[name]:
        x = np.asarray(found[level]["__call__"][0], "float64")
        x = x[:, 1:].reshape(-1, 6, 6, x.shape[-1]) if x.ndim == 3 else x
        parts = min(4, x.shape[1])
        ends = [  # Of 6 rows in 4 parts: 0-2, 1-3, 3-5, 4-6.
            (
                int(np.floor(i * x.shape[1] / parts)),
                int(np.ceil((i + 1) * x.shape[1] / parts)),
            )
            for i in range(parts)
        ]
        x = np.concatenate(
            [x[:, a:b, c:d].mean((1, 2)) for a, b in ends for c, d in ends], axis=1
        )
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        u = np.linalg.svd(x - x.mean(0), full_matrices=False)[0][:, :36]
        want.append(u / np.linalg.norm(u, axis=1, keepdims=True))
    got = np.split(levels.find_levels(backbone, Store()), 4, axis=1)
    for a, b in zip(got, want, strict=True):  # Equal but for signs of components.
        np.testing.assert_allclose(a @ a.T, b @ b.T, atol=2e-2)


class Mean(Facts, nn.Module):
    """A network without maps."""

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(8)(x.mean((1, 2)))


def test_a_backbone_without_maps():
    with pytest.raises(UserError, match="needs maps, which Mean does not give"):
        levels.find_levels(backbone_of(Mean()), Store())


@pytest.mark.parametrize("module", [NETWORKS["resnet"](), Mean()])
def test_maps_are_compared_where_there_are_some(module, monkeypatch):
    backbone = backbone_of(module)
    monkeypatch.setattr(sp_jax, "load", lambda path: backbone)
    of = {"weights": backbone.identity()}
    by_default, made_by = find_features(Store(), "weights.pth", None, levels=None)
    features, by_features = find_features(Store(), "weights.pth", None, levels=False)
    assert by_features == of and features.shape[1] < 100
    if module.levels():
        assert made_by == of | {"levels": True}
        assert by_default.shape != features.shape
    else:
        assert made_by == of
        np.testing.assert_array_equal(by_default, features)
