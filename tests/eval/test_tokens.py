"""Class tokens of the last blocks and means of patches, against timm's."""

import jax
import numpy as np
import pytest

from eval import knn, linear_probe
from sp_jax import models
from sp_jax.backbone import Backbone
from sp_jax.errors import UserError
from sp_jax.features import Extractor
from tests.models.test_vit import timm_vit, to_timm, variables_of

HALF = (0.5, 0.5, 0.5)
SPLITS = dict(dataset="tiny", train_split="train", test_split="test")


def make(depth=5):
    module = models.get(
        "vit_tiny", dim=24, depth=depth, heads=3, patch_size=8, image_size=16
    )
    variables = jax.tree.map(np.float32, variables_of(module, 16))
    return Backbone(module, variables, size=16, mean=HALF, std=HALF)


def test_equals_timm():
    backbone = make()
    network = timm_vit(img_size=16, patch_size=8, embed_dim=24, depth=5, num_heads=3)
    to_timm(backbone.variables["params"], network)
    import torch

    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
    x = torch.from_numpy(images.transpose(0, 3, 1, 2)).float() / 127.5 - 1
    with torch.no_grad():
        blocks = network.eval().forward_intermediates(
            x, indices=4, norm=True, return_prefix_tokens=True, intermediates_only=True
        )
    classes = torch.cat([prefix[:, 0] for _, prefix in blocks], dim=1).numpy()
    means = blocks[-1][0].mean(dim=(2, 3)).numpy()  # patches [n, D, rows, columns]
    extractor = Extractor(backbone, batch_size=4)
    found = {t: extractor.of_tokens(t).map(images) for t in ("cls", "cls4", "mean")}
    np.testing.assert_allclose(found["cls4"], classes, atol=1e-4)
    np.testing.assert_allclose(found["mean"], means, atol=1e-4)
    np.testing.assert_array_equal(found["cls"], extractor.map(images))
    np.testing.assert_allclose(found["cls4"][:, -24:], found["cls"], atol=1e-6)
    assert extractor.of_tokens("mean") is extractor.of_tokens("mean")


@pytest.mark.parametrize("module", [knn, linear_probe])
def test_evaluators_take_them(blobs, provide, module, monkeypatch):
    provide(blobs("train", 0), blobs("test", 1))
    options = dict(**SPLITS, tokens="cls4")
    asked = []
    original = Extractor.of_tokens

    def spy(self, tokens):
        asked.append(tokens)
        return original(self, tokens)

    monkeypatch.setattr(Extractor, "of_tokens", spy)
    result = module.create(**options)(Extractor(make()), 0)
    assert 0 <= result["accuracy"] <= 1 and asked == ["cls4"]
    assert "class tokens of the last 4 blocks" in module.create(**options).protocol
    assert "token" not in module.create(**SPLITS).protocol
    with pytest.raises(
        UserError, match="no tokens 'all': choose one of cls, cls4, mean"
    ):
        module.create(**SPLITS, tokens="all")


def test_who_has_none(pixels):
    resnet = models.get("resnet18", width=4)
    for backbone in (Backbone(resnet, {}, 16, HALF, HALF), pixels):
        with pytest.raises(
            UserError, match="Only vision transformers have tokens=mean"
        ):
            Extractor(backbone).of_tokens("mean")
    with pytest.raises(UserError, match="needs four blocks; there are 3"):
        Extractor(make(depth=3)).of_tokens("cls4")
    with pytest.raises(ValueError, match="no option 'tokens'"):
        models.get("vit_tiny", tokens="mean")
