"""Maps, attention and filters are drawn as the network has them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from eval import figures
from eval.plots import backbone as plots
from eval.plots.figure import save_figure
from input_pipeline.pairs.pairing import augmented_pairs, semantic_pairs
from sp_jax import models
from sp_jax.backbone import Backbone
from sp_jax.errors import UserError
from sp_jax.features import Extractor

HALF = (0.5, 0.5, 0.5)


def make(**model):
    module = models.get(**model)
    images = jnp.zeros((1, 16, 16, 3))
    variables = jax.jit(lambda: module.init(jax.random.key(0), images, False))()
    # Larger than at the start, where all tokens look alike.
    variables = jax.tree.map(lambda x: 4 * x, variables)
    return Backbone(module, variables, size=16, mean=HALF, std=HALF)


@pytest.fixture(scope="module")
def vit():
    return make(name="vit_tiny", dim=24, depth=2, heads=3, patch_size=4, image_size=16)


@pytest.fixture(scope="module")
def resnet():
    return make(name="resnet18", width=4)


def test_attention_is_that_of_the_last_block(vit):
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    maps = plots.attention(vit, images)
    assert maps.shape == (2, 3, 4, 4)
    _, kept = vit.module.apply(
        vit.variables, vit.preprocess(images), False, capture_intermediates=True
    )
    x = np.asarray(kept["intermediates"]["block1"]["norm1"]["__call__"][0], np.float64)
    layer = vit.variables["params"]["block1"]["attn"]["qkv"]
    kernel, bias = (np.asarray(layer[name], np.float64) for name in ("kernel", "bias"))
    for head in range(3):
        part = slice(8 * head, 8 * head + 8)
        query = x[:, 0] @ kernel[:, :24][:, part] + bias[:24][part]
        key = x @ kernel[:, 24:48][:, part] + bias[24:48][part]
        weight = np.exp(np.einsum("nd,nkd->nk", query, key) / 8**0.5)
        weight /= weight.sum(1, keepdims=True)
        got = maps[:, head].reshape(2, 16)
        np.testing.assert_allclose(got, weight[:, 1:], rtol=1e-4, atol=1e-6)
        assert got.std() > 1e-3


def test_names_are_drawn_as_they_are(tmp_path):
    """Dollar signs are no mathematics, an underscore hides nothing."""
    names = ("$5 and $10", "$a_b^{$", "_hidden", "\\alpha", "others", "caf\udce9")
    points = np.random.default_rng(0).standard_normal((13, 2))
    labels = np.arange(13) % 7 - 1
    figure = plots.draw_map(points, labels, names, "folder:$a^{$b")
    (axis,) = figure.axes
    assert axis.get_title() == "folder:$a^{$b"
    texts = [text.get_text() for text in axis.get_legend().get_texts()]
    assert sorted(texts) == sorted([*names[:-1], "caf?", "others"])
    save_figure(figure, tmp_path / "map.png")


def test_a_map_keeps_neighbours_together():
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    features = 5 * np.eye(60)[labels] + 0.3 * rng.normal(size=(90, 60))
    points = plots.map_points(features, seed=0)
    centres = np.stack([points[labels == i].mean(0) for i in range(3)])
    distance = np.linalg.norm(points[:, None] - centres, axis=2)
    assert np.array_equal(distance.argmin(1), labels)
    assert np.array_equal(plots.map_points(features, seed=0), points)


@pytest.mark.parametrize("features", [np.zeros((40, 8)), np.ones((1, 8))])
def test_a_map_of_features_that_are_all_equal(features):
    assert np.array_equal(plots.map_points(features, 0), np.zeros((len(features), 2)))


def test_kernels_of_both_kinds(vit, resnet):
    assert plots.first_kernels(vit).shape == (24, 4, 4, 3)
    kernels = plots.first_kernels(resnet)
    assert kernels.shape == (4, 7, 7, 3)
    kernel = resnet.variables["params"]["conv1"]["kernel"]
    np.testing.assert_array_equal(kernels[2], kernel[..., 2])
    with pytest.raises(UserError, match="Only vision transformers"):
        plots.attention(resnet, np.zeros((1, 16, 16, 3), np.uint8))


def test_all_pictures(vit, make_store, tmp_path):
    """More classes than colours, images without a class: every picture can be drawn."""
    rng = np.random.default_rng(0)
    labels = np.append(np.arange(58) % 25, [-1, -1])
    store = make_store(rng.integers(0, 256, (60, 12)), labels)
    paths = figures.draw(Extractor(vit), store, "label", tmp_path / "figures")
    assert {path.stem for path in paths} == {"map", "filters", "attention"}
    for path in paths:
        with Image.open(path) as picture:
            assert np.asarray(picture.convert("L")).std() > 5
    figure = plots.draw_neighbours(store.images.reshape(60, -1), store, _pairs(store))
    axes = np.array(figure.axes).reshape(8, 15)  # with a gap in the middle
    shown = np.asarray(axes[0, 0].images[0].get_array())
    assert any(np.array_equal(shown, image) for image in store.images)
    save_figure(figure, tmp_path / "neighbours.png")


def _pairs(store):
    return augmented_pairs(semantic_pairs(store, seed=0), store)
