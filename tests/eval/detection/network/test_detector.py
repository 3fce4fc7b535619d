"""The network of Faster R-CNN: a checkpoint's backbone is in it, whole and unchanged."""

import functools

import jax
import numpy as np
import pytest

from eval.detection.network.detector import make_detector
from eval.detection.network.faster_rcnn import FasterRCNN
from eval.detection.network.selection import Settings
from sp_jax import models
from sp_jax.backbone import Backbone
from sp_jax.methods import Method
from sp_jax.models.resnet import BasicBlock, ResNet

BACKBONE = ResNet((1, 1, 1, 1), BasicBlock, width=8)


@pytest.mark.parametrize("stem, stride", [("imagenet", 16), ("small", 4)])
def test_trunk_and_last_stage_are_the_backbone(stem, stride):
    """Computed from the variables of the backbone alone, as a checkpoint has them."""
    backbone = ResNet((1, 1, 1, 1), BasicBlock, width=8, stem=stem)
    network = FasterRCNN(backbone, 3, 9)
    x = np.random.default_rng(0).normal(size=(2, 48, 80, 3)).astype(np.float32)
    own = jax.jit(functools.partial(backbone.init, train=False))(jax.random.key(0), x)
    inside = {name: {"backbone": tree} for name, tree in own.items()}

    @jax.jit
    def both(inside, own):
        features = network.apply(inside, x, False, method="features")
        last = network.apply(
            inside, features, method=lambda m, y: m.backbone.last_stage(y, False)
        )
        return features, last.mean((1, 2)), backbone.apply(own, x, False)

    features, got, expected = both(inside, own)
    assert network.backbone.stride == stride
    assert features.shape == (2, 48 // stride, 80 // stride, 32)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_a_checkpoint_is_put_in_whole():
    own = make_detector(BACKBONE, 3, (0.5,) * 3, (0.2,) * 3, Settings())
    params, state = jax.jit(own.init)(jax.random.key(0), np.zeros((1, 32, 32, 3)))
    init = jax.jit(functools.partial(BACKBONE.init, train=False))
    trained = init(jax.random.key(7), np.zeros((1, 32, 32, 3), np.float32))
    trained["batch_stats"] = jax.tree.map(lambda x: x + 1, trained["batch_stats"])
    method = Method(own.init, own.loss)

    def put(variables):
        backbone = Backbone(BACKBONE, variables, 32, (0.5,) * 3, (0.2,) * 3)
        return method.start_from(params, state, backbone.network())

    new, new_state = put(trained)
    assert new["backbone"] is trained["params"]
    assert new_state["batch_stats"]["backbone"] is trained["batch_stats"]
    assert new["rpn"] is params["rpn"]
    norm = "extra_norm"
    assert new_state["batch_stats"][norm] is state["batch_stats"][norm]

    kernel = {"kernel": np.zeros((7, 7, 3, 16))}
    other = {**trained, "params": {**trained["params"], "conv1": kernel}}
    with pytest.raises(ValueError, match=r"conv1/kernel is \(7, 7, 3, 16\) in the"):
        put(other)
    with pytest.raises(ValueError, match="batch_stats/.*/bn1/mean is missing in the w"):
        put({"params": trained["params"]})
    more = {**trained, "params": {**trained["params"], "fc": kernel}}
    with pytest.raises(ValueError, match="fc/kernel .* missing in the network"):
        put(more)


def test_what_does_not_fit_is_told():
    chunked = models.Chunked(BACKBONE, 2, 8)
    with pytest.raises(ValueError, match="that gives a map .* Chunked gives none"):
        FasterRCNN(chunked, 3, 9)
    with pytest.raises(ValueError, match="tokens='map'.*, and ViT of .* gives none"):
        FasterRCNN(models.get("vit_tiny"), 3, 9)
    for name, value in {
        "head_samples": 0,
        "nms_iou": 1.5,
        "rpn_iou": (0.7, 0.3),
        "anchor_sizes": (),
    }.items():
        with pytest.raises(ValueError, match=f"{name} is "):
            Settings(**{name: value})
