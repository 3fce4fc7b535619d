"""Features with layout are the means of a backbone's map, part by part."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from input_pipeline.mining.layout import with_layout
from sp_jax import models
from sp_jax.backbone import Backbone
from sp_jax.errors import UserError
from sp_jax.models import Facts

SIZE, HALF = 48, (0.5, 0.5, 0.5)
NETWORKS = {
    "resnet": lambda: models.get(
        "resnet18", width=2, stem="imagenet"
    ),  # A map of 3 x 3.
    "vit": lambda: models.get("vit_tiny", patch_size=16, depth=1, image_size=SIZE),
}


def backbone_of(module):
    rng = np.random.default_rng(0)
    x = np.zeros((1, SIZE, SIZE, 3), "float32")
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, False))
    variables = jax.tree.map(lambda a: rng.uniform(0.1, 1, a.shape), shapes)
    return Backbone(module, variables, SIZE, HALF, HALF)


@pytest.mark.parametrize("name", NETWORKS)
def test_means_of_the_map(name):
    backbone = backbone_of(NETWORKS[name]())
    images = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    module = backbone.module.for_detection()

    @jax.jit
    def trunk(images):
        x = backbone.preprocess(images)
        return module.apply(backbone.variables, x, False, method=module.trunk)

    found = trunk(images)
    assert found.shape[1:3] == (3, 3)
    layout = with_layout(backbone, 2)
    halves = slice(0, 2), slice(1, 3)  # The row in the middle is in both.
    want = [found[:, r, c].mean((1, 2)) for r in halves for c in halves]
    np.testing.assert_allclose(layout(images), np.concatenate(want, 1), 1e-4, 1e-4)
    assert layout.identity() != backbone.identity()
    with pytest.raises(UserError, match="--layout=4 is too much: the map has 3 rows"):
        with_layout(backbone, 4)


def test_a_backbone_without_a_map():
    class Mean(Facts, nn.Module):
        def __call__(self, x, train):
            return x.mean((1, 2))

    with pytest.raises(UserError, match="needs a map, which Mean does not give"):
        with_layout(backbone_of(Mean()), 2)
