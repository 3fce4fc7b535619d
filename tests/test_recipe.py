"""From a config to networks of the official sizes, and to the official optimiser."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sp_jax import methods, optim
from sp_jax.recipe import make_optimizer, view_configs
from tests.methods.recipe_steps import recipe_variables, shapes_of
from tests.test_configs import RECIPES

# Layers of each head: (inputs, outputs, has a bias, what normalises it). A "plain"
# normalisation has statistics only, a "scale" one no bias.
MOCO_V3_PREDICTOR = [(256, 4096, False, "affine"), (4096, 256, False, None)]
BYOL = [(4096, True, "affine"), (256, False, None)]
SWAV = [(2048, 2048, True, "affine"), (2048, 128, True, None)]
DINO = [(2048, 2048, True, None), (2048, 256, True, None)]


def three(inputs, width, bias, last):
    """Three layers of one width; the last has no bias."""
    return [
        (inputs, width, bias, "affine"),
        (width, width, bias, "affine"),
        (width, width, False, last),
    ]


def simclr(width):
    return [(width, width, False, "affine")] * 2 + [(width, 128, False, "scale")]


HEADS = {
    "simclr_resnet50": {"projector": simclr(2048)},
    "simclr_vit": {"projector": simclr(384)},
    "moco_v2_resnet50": {
        "projector": [(2048, 2048, True, None), (2048, 128, True, None)]
    },
    "moco_v3_resnet50": {
        "projector": [(2048, 4096, False, "affine"), (4096, 256, False, "plain")],
        "predictor": MOCO_V3_PREDICTOR,
    },
    "moco_v3_vit": {
        "projector": [
            (384, 4096, False, "affine"),
            (4096, 4096, False, "affine"),
            (4096, 256, False, "plain"),
        ],
        "predictor": [MOCO_V3_PREDICTOR[0], (4096, 256, False, "plain")],
    },
    "byol_resnet50": {
        "projector": [(2048, *BYOL[0]), (4096, *BYOL[1])],
        "predictor": [(256, *BYOL[0]), (4096, *BYOL[1])],
    },
    "simsiam_resnet50": {
        "projector": three(2048, 2048, False, "plain"),
        "predictor": [(2048, 512, False, "affine"), (512, 2048, True, None)],
    },
    "barlow_twins_resnet50": {"projector": three(2048, 8192, False, None)},
    "vicreg_resnet50": {"projector": three(2048, 8192, True, None)},
    "swav_resnet50": {"projector": SWAV},
    "deepcluster_resnet50": {"projector": SWAV},
    "nnclr_resnet50": {
        "projector": [
            (2048, 2048, False, "affine"),
            (2048, 2048, False, "affine"),
            (2048, 256, False, "affine"),
        ],
        "predictor": [(256, 4096, False, "affine"), (4096, 256, True, None)],
    },
    "supcon_resnet50": {"projector": simclr(2048)},
    "pirl_resnet50": {
        "image_head": [(2048, 128, True, None)],
        "patch_head": [(2048, 128, True, None)],
        "jigsaw_head": [(9 * 128, 128, True, None)],
    },
    "dino_resnet50": {"projector": [(2048, 2048, True, None), *DINO]},
    "dino_vit": {"projector": [(384, 2048, True, None), *DINO]},
}
# What is no dense layer with a normalisation.
OTHERS = {
    "swav_resnet50": {"prototypes/kernel": (128, 3000)},
    "dino_resnet50": {"projector/last_layer/kernel": (256, 65536)},
    "dino_vit": {
        "projector/last_layer/kernel": (256, 65536),
        "projector/last_layer/scale": (65536,),
    },
}
NORMS = {"affine": ("scale", "bias"), "scale": ("scale",), "plain": ()}


def official(name):
    """Shapes of the parameters of the heads, and of their running statistics."""
    params, stats = dict(OTHERS.get(name, {})), {}
    for head, layers in HEADS[name].items():
        for i, (inputs, outputs, bias, norm) in enumerate(layers):
            params[f"{head}/dense{i}/kernel"] = (inputs, outputs)
            if bias:
                params[f"{head}/dense{i}/bias"] = (outputs,)
            if norm:
                params |= {f"{head}/bn{i}/{k}": (outputs,) for k in NORMS[norm]}
                stats |= {f"{head}/bn{i}/{k}": (outputs,) for k in ("mean", "var")}
    return params, stats


def load(name):
    return importlib.import_module(f"configs.{name}").get_config()


def heads(tree):
    return {k: v for k, v in shapes_of(tree).items() if not k.startswith("backbone/")}


@pytest.mark.parametrize("name", RECIPES)
def test_the_frame_of_the_paper_and_the_official_heads(name):
    config = load(name)
    assert (config.image_size, config.batch_size, config.epochs) == (64, 256, 200)
    params, state = recipe_variables(config)
    want, stats = official(name)
    assert heads(params) == want
    assert heads(state["batch_stats"]) == stats
    optim.assign(methods.get(config.method).RULES, params)  # an error without a rule
    if name.endswith("_vit"):
        # 64 px in patches of 8; MoCo v3 has fixed positions.
        backbone = params["backbone"]
        kernel = backbone["patch_embed"]["proj"]["kernel"]
        assert np.prod(kernel.shape) == 8 * 8 * 3 * 384
        positions = backbone.get("pos_embed")
        assert (positions is None) == (name == "moco_v3_vit")
        assert positions is None or positions.shape == (1, 1 + 8 * 8, 384)


def optimizer_of(name, run, **changes):
    config = load(name).to_dict()
    config["optimizer"].update(changes)
    return make_optimizer(config, run)


def half_cosine(share):
    return (1 + np.cos(np.pi * share)) / 2


def test_dino_clips_the_gradient_of_each_parameter():
    run = methods.RunSize(
        total_steps=40, steps_per_epoch=4, batch_size=512, num_images=1
    )
    tx = optimizer_of("dino_resnet50", run, warmup_epochs=0.0)[0]
    params = {"backbone": {"a": {"kernel": jnp.zeros((5, 5))}, "bias": jnp.zeros(4)}}
    small = np.array([0.1, -0.2, 0.3, 0.4], np.float32)
    grads = {"backbone": {"a": {"kernel": jnp.full((5, 5), 1e4)}, "bias": small}}
    updates, _ = jax.jit(tx.update)(grads, tx.init(params), params)
    got = updates["backbone"]
    rate = 0.03 * 512 / 256
    assert np.linalg.norm(got["a"]["kernel"]) == pytest.approx(3 * rate, rel=1e-4)
    np.testing.assert_allclose(got["bias"], -rate * small, rtol=1e-5)


def test_dino_decays_more_and_more():
    """Without a gradient, what is left of AdamW is the decay."""
    run = methods.RunSize(
        total_steps=40, steps_per_epoch=2, batch_size=256, num_images=1
    )
    tx = optimizer_of("dino_vit", run)[0]
    w = np.array([[1.0, -2.0], [3.0, 0.5]], np.float32)
    params = {"backbone": {"d": {"kernel": w, "bias": w[0]}, "cls_token": w[None]}}
    zero = jax.tree.map(np.zeros_like, params)
    state, update = tx.init(params), jax.jit(tx.update)
    for step in range(40):
        # The warm-up takes 10 epochs; the last rate is a millionth.
        rate = 5e-4 * step / 20
        if step > 20:
            rate = 1e-6 + (5e-4 - 1e-6) * half_cosine((step - 20) / 20)
        decay = 0.4 - (0.4 - 0.04) * half_cosine(step / 40)
        updates, state = update(zero, state, params)
        got, want = updates["backbone"], -rate * decay * w
        np.testing.assert_allclose(got["d"]["kernel"], want, rtol=1e-4, atol=1e-12)
        np.testing.assert_allclose(got["cls_token"][0], want, rtol=1e-4, atol=1e-12)
        assert not np.any(got["d"]["bias"])


@pytest.mark.parametrize(
    "name, peak, last",
    [
        ("moco_v2_resnet50", 0.03, 0.0),
        ("simsiam_resnet50", 0.05, 0.0),
        ("pirl_resnet50", 0.03, 0.001),
    ],
)
def test_the_rate_changes_once_an_epoch(name, peak, last):
    """Step t of epoch e: the official cosine of e / epochs."""
    run = methods.RunSize(
        total_steps=30, steps_per_epoch=5, batch_size=512, num_images=1
    )
    rate = optimizer_of(name, run)[1]
    got = [float(rate(step)) for step in range(30)]
    cosine = half_cosine(np.arange(6) / 6)
    want = 2 * peak * np.repeat(last + (1 - last) * cosine, 5)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_the_predictor_of_simsiam_learns_at_the_first_rate():
    run = methods.RunSize(
        total_steps=30, steps_per_epoch=5, batch_size=256, num_images=1
    )
    tx = optimizer_of("simsiam_resnet50", run)[0]
    params = {name: {"kernel": jnp.zeros(2)} for name in ("backbone", "predictor")}
    grads = jax.tree.map(jnp.ones_like, params)
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(29):
        _, state = update(params, state, params)  # zeros: nothing is remembered
    updates, _ = update(grads, state, params)
    rates = {"backbone": 0.05 * half_cosine(5 / 6), "predictor": 0.05}
    for name, want in rates.items():
        np.testing.assert_allclose(updates[name]["kernel"], -want, rtol=1e-5)


@pytest.mark.parametrize("method", ["simclr", "dino", "pirl"])
def test_changes_of_the_second_view_reach_no_other(method):
    config = load(f"{method}_resnet50").to_dict()
    config["augment"]["blur"] = 0.1
    before = view_configs(config)
    config["augment_second"].update(jitter=0.0, grayscale=0.0)
    if method != "pirl":  # the crop of a jigsaw is the puzzle's
        config["augment_second"].update(crop_scale=(0.4, 1.0))
    after = view_configs(config)
    assert after[0] == before[0] and after[2:] == before[2:]
    own, was = (getattr(views[1], "view", views[1]) for views in (after, before))
    assert (own.jitter, own.grayscale, own.blur) == (0.0, 0.0, 0.1)
    scale = was.crop_scale if method == "pirl" else (0.4, 1.0)
    assert own.crop_scale == scale
    del config["augment_second"]  # as an older version wrote it
    assert view_configs(config) == before


@pytest.mark.parametrize(
    "method, changes, said",
    [
        ("pirl", {"augment_second": {"crop_scale": (0.5, 1.0)}}, "a puzzle of patches"),
        (
            "deepcluster",
            {"augment": {"local_crop_scale": (0.1, 0.2)}},
            "no local crops",
        ),
        (
            "pirl",
            {"augment": {"blur": 0.5, "blur_kernel": 41}},
            "below twice the 18 px",
        ),
    ],
)
def test_changes_that_reach_no_view(method, changes, said):
    config = (
        importlib.import_module(f"configs.{method}_resnet50").get_config().to_dict()
    )
    for section, values in changes.items():
        config[section] = config[section] | values
    with pytest.raises(ValueError, match=said):
        view_configs(config)
