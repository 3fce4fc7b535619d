"""A frozen backbone as a function of images."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sp_jax.backbone
from sp_jax import models
from sp_jax.augment import preprocess
from sp_jax.backbone import Backbone

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)


@pytest.fixture(scope="module")
def backbone():
    module = models.get("resnet18", width=4, zero_init_residual=False)
    images = jnp.zeros((1, 32, 32, 3))
    variables = jax.jit(lambda key: module.init(key, images, False))(jax.random.key(0))
    return Backbone(module, variables, size=32, mean=MEAN, std=STD)


def test_any_number_of_images_on_eight_devices(backbone):
    images = np.random.default_rng(0).integers(0, 256, (11, 40, 40, 3), np.uint8)
    features = backbone(images)
    assert features.shape == (11, 32) and features.dtype == jnp.float32
    x = preprocess(images, 32, MEAN, STD)
    want = backbone.module.apply(backbone.variables, x, False)
    np.testing.assert_allclose(features, want, rtol=1e-4, atol=1e-5)


def test_it_is_a_pure_function_of_its_variables(backbone):
    """What is trained on top can take gradients, under jit."""
    images = np.full((2, 32, 32, 3), 7, np.uint8)

    @jax.jit
    @jax.grad
    def gradient(params):
        variables = {**backbone.variables, "params": params}
        return jnp.sum(backbone.apply(variables, images))

    found = gradient(backbone.variables["params"])
    assert np.any(found["layer4_1"]["conv2"]["kernel"])


def test_images_have_to_be_bytes(backbone, monkeypatch):
    """Without the annotations' checks of the tests, this is the error that a user reads."""
    monkeypatch.setattr(sp_jax.backbone, "preprocess", inspect.unwrap(preprocess))
    with pytest.raises(ValueError, match="uint8"):
        backbone(np.zeros((8, 32, 32, 3), np.float32))


def test_the_untrained_network_is_another_of_the_same_kind(backbone):
    first, again = backbone.untrained(), backbone.untrained()
    assert first.fingerprint() == again.fingerprint() != backbone.fingerprint()
    shapes = [jax.tree.map(jnp.shape, x.variables) for x in (first, backbone)]
    assert shapes[0] == shapes[1] and first.info["step"] == 0
