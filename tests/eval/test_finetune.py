"""Fine-tuning learns, leaves the backbone alone, and gives each layer its rate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eval import finetune
from eval.supervised import trainable
from sp_jax import models, optim
from sp_jax.backbone import Backbone
from sp_jax.errors import UserError
from sp_jax.features import Extractor

SPLITS = dict(dataset="tiny", train_split="train", test_split="test")
FAST = dict(**SPLITS, epochs=20, warmup_epochs=2, batch_size=32, crop_scale=0.9)


@pytest.fixture
def colours(make_store, provide):
    """Three classes by the brightest colour."""

    def store(split, seed):
        rng = np.random.default_rng(seed)
        labels = np.arange(60) % 3
        values = (
            80 + 80 * np.tile(np.eye(3)[labels], 4) + 20 * rng.normal(size=(60, 12))
        )
        return make_store(np.clip(values, 0, 255), labels, split)

    provide(store("train", 0), store("test", 1))


def make(**model):
    module = models.get(**model)
    shape = (1, 16, 16, 3)
    variables = jax.jit(lambda: module.init(jax.random.key(0), jnp.zeros(shape), False))
    half = (0.5, 0.5, 0.5)
    return Backbone(module, variables(), size=16, mean=half, std=half)


RESNET = dict(name="resnet18", width=4, stem="small")
VIT = dict(name="vit_tiny", dim=16, depth=2, heads=2, patch_size=8, image_size=16)


@pytest.mark.parametrize(
    ("model", "rate"), [(RESNET, 0.4), (VIT, 0.02)], ids=["sgd", "adamw"]
)
def test_it_learns_and_the_backbone_stays(model, rate, colours):
    backbone = make(**model)
    before = jax.tree.map(np.array, backbone.variables)
    evaluate = finetune.create(**FAST, learning_rate=rate)
    result = evaluate(Extractor(backbone), 0)
    assert result["accuracy"] > 0.8  # chance is 1 / 3
    assert evaluate(Extractor(backbone), 0) == result
    jax.tree.map(np.testing.assert_array_equal, before, backbone.variables)


def test_rates_of_the_layers():
    def rates(**model):
        backbone = make(**model)
        params = {"backbone": backbone.variables["params"], "head": {"kernel": 0.0}}
        rules = finetune.layer_rules(backbone.module, 0.5)
        found = jax.tree.map(lambda i: rules[i], optim.assign(rules, params))
        return found["backbone"], found["head"]["kernel"]

    vit, head = rates(**VIT)
    assert head.factor == vit["norm"]["scale"].factor == 1
    assert vit["block1"]["mlp"]["fc1"]["kernel"].factor == 0.5
    assert vit["block0"]["norm1"]["bias"].factor == 0.25
    assert vit["pos_embed"].factor == vit["patch_embed"]["proj"]["bias"].factor == 0.125
    decays = [vit["block0"]["mlp"]["fc1"][name].decay for name in ("kernel", "bias")]
    assert decays == [True, False] and not vit["pos_embed"].decay

    resnet, head = rates(**RESNET)
    assert (head.factor, resnet["layer4_1"]["conv2"]["kernel"].factor) == (1, 0.5)
    assert resnet["layer1_0"]["bn1"]["scale"].factor == 0.5**4
    assert resnet["conv1"]["kernel"].factor == 0.5**5


def test_nothing_stays_frozen():
    """MoCo v3 does not train the patch projection of its ViT."""
    frozen = models.get("vit_tiny", position="sincos", freeze_patch_embedding=True)
    assert trainable(frozen) == frozen.clone(freeze_patch_embedding=False)
    assert trainable(resnet := models.get("resnet18")) is resnet


def test_what_does_not_fit_is_said(colours, pixels):
    with pytest.raises(UserError, match="more than warmup_epochs"):
        finetune.create(**SPLITS, epochs=3, warmup_epochs=3)
    with pytest.raises(UserError, match="layer_decay must be .* from 0 to 1"):
        finetune.create(**SPLITS, layer_decay=1.5)
    with pytest.raises(UserError, match="needs a backbone"):
        finetune.create(**FAST)(Extractor(pixels), 0)
    with pytest.raises(UserError, match="split over 8 devices"):
        finetune.create(**FAST | {"batch_size": 4})(Extractor(make(**RESNET)), 0)
    assert (
        "fine-tuning, 20 epochs batch 32, rate by network"
        in finetune.create(**FAST).protocol
    )
