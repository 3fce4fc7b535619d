"""Weights to start from: a run that loads them makes the same steps as one that had them."""

import json
import shutil

import jax
import numpy as np
import pytest

import sp_jax
from sp_jax import main, methods, weights
from sp_jax import sharding as mesh_module
from sp_jax.backbone import fingerprint
from sp_jax.errors import UserError
from sp_jax.recipe import make_recipe
from sp_jax.sharding import by_batch, make_mesh
from sp_jax.train.initial import open_start
from sp_jax.train.step import init_state, jit_step, make_step
from tests.methods.build import shallow_resnet
from tests.train import tiny

RUN = methods.RunSize(total_steps=20, steps_per_epoch=10, batch_size=16, num_images=512)
HEADS = {"projection_dim": 16, "hidden_dim": 32}


@pytest.fixture(autouse=True, scope="module")
def _shallow():
    with shallow_resnet():
        yield


def make_config(method="byol", init="", **changes):
    """The tiny config with small heads."""
    config = tiny.get_config()
    config.method = method
    if method != "simclr":
        config.method_options = HEADS
    config.init = str(init)
    config.update(changes)
    return config.to_dict()


def draw(config, seed=0, network=None, devices=1, fsdp=1):
    """The recipe of a config, its state and its mesh."""
    recipe, mesh = make_recipe(config, RUN), make_mesh(jax.devices()[:devices], fsdp)
    return recipe, init_state(recipe, seed, mesh, network), mesh


def make_one_step(recipe, mesh):
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (16, 2, 16, 16, 3), np.uint8),
        "index": np.arange(32, dtype=np.int32).reshape(16, 2),
        "label": np.zeros(16, np.int32),
    }
    step, batch = (
        jit_step(make_step(recipe, mesh), mesh),
        jax.device_put(batch, by_batch(mesh)),
    )
    return lambda state: jax.device_get(step(state, batch)[:2])


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A trained network's file: of another seed, so that nothing is right by chance."""
    recipe, state, _ = draw(make_config(), seed=7)
    stats = jax.tree.map(lambda x: x + 0.5, state.method_state["batch_stats"])
    backbone = recipe.freeze(state.params, {**state.method_state, "batch_stats": stats})
    path = tmp_path_factory.mktemp("exported") / "net.safetensors"
    return weights.save(backbone, path, "torchvision"), backbone


def test_a_step_from_weights_is_that_of_a_run_that_had_them(exported, tmp_path):
    path, backbone = exported
    config = make_config(init=path)
    recipe, state, mesh = draw(config)
    params, state_of = state.params, state.method_state
    have = backbone.variables
    had = state.replace(
        params={**params, "backbone": have["params"]},
        method_state={
            "batch_stats": {
                **state_of["batch_stats"],
                "backbone": have["batch_stats"],
            },
            "target": {**state_of["target"], "backbone": have["params"]},
            "target_stats": {
                **state_of["target_stats"],
                "backbone": have["batch_stats"],
            },
        },
    )
    had = jax.device_put(jax.device_get(had), jax.devices()[0])
    start = open_start(config, recipe, tmp_path)
    taken = init_state(recipe, 0, mesh, start.network)
    step = make_one_step(recipe, mesh)
    jax.tree.map(np.testing.assert_array_equal, step(taken), step(had))


@pytest.mark.slow
def test_eight_devices_take_what_one_takes(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(mesh_module, "MIN_SIZE", 256)  # the network is tiny
    config = make_config(init=exported[0], dtype="float32")
    network = open_start(config, make_recipe(config, RUN), tmp_path).network
    one, eight = (
        draw(config, network=network, devices=n, fsdp=n // 4 or 1) for n in (1, 8)
    )
    jax.tree.map(
        np.testing.assert_array_equal, *map(jax.device_get, (one[1], eight[1]))
    )
    first, second = (
        make_one_step(r, mesh)(state)[1] for r, state, mesh in (one, eight)
    )
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-4)


@pytest.mark.parametrize("method", methods.NAMES)
def test_every_copy_of_the_backbone_starts_as_it_is(method):
    config = make_config(method)
    config["method_options"] = {}
    if method in ("moco_v2", "nnclr"):
        config["method_options"]["queue_size"] = 32
    if method == "deepcluster":
        config["method_options"]["num_clusters"] = 8
    recipe = make_recipe(config, RUN)
    params, state = jax.eval_shape(recipe.init, jax.random.key(0))
    other = {"params": params["backbone"]}
    other["batch_stats"] = state["batch_stats"]["backbone"]
    other = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), other)
    network = {kind: {"backbone": tree} for kind, tree in other.items()}
    known = set(map(id, jax.tree.leaves(other)))
    before, after = (params, state), recipe.method.start_from(params, state, network)
    for (path, old), new in zip(
        jax.tree.leaves_with_path(before), jax.tree.leaves(after), strict=True
    ):
        inside = "'backbone'" in jax.tree_util.keystr(path)
        assert (id(new) in known) == inside and (new is old) == (not inside), path


def test_heads_are_those_of_the_network_that_is_evaluated():
    heads = {"hidden_dim": 16, "bottleneck_dim": 8, "out_dim": 8}
    recipe, state, _ = draw(make_config("dino") | {"method_options": heads})
    own = {**state.method_state, "teacher": jax.tree.map(lambda x: x + 1, state.params)}
    backbone = recipe.freeze(state.params, own)
    network = backbone.network(heads=True)
    assert network["params"] == own["teacher"]
    params, begun = recipe.method.start_from(state.params, own, network)
    assert params == begun["teacher"] == own["teacher"]
    assert begun["center"] is own["center"]


def with_model(**changes):
    config = make_config()
    return config | {"model": config["model"] | changes}


VIT = dict(name="vit_tiny", dim=64, depth=1, heads=1)
MISFITS = {
    "width": (with_model(width=16), r"set config\.model\.width=8\."),
    "name": (
        with_model(name="resnet34"),
        r"ResNet of 4 .* is a ResNet of 16 .*: set config\.model\.name=resnet18\.",
    ),
    "stem": (with_model(stem="small"), r"set config\.model\.stem=imagenet\."),
    "a vit": (
        make_config() | {"model": VIT | {"patch_size": 8, "image_size": 16}},
        r"set config\.model\.name=resnet18, config\.model\.width=8\.",
    ),
    "heads of a file": (
        make_config(init_heads=True),
        "a run of byol, but .* is not a run",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_said_with_what_to_set(exported, tmp_path, case):
    config, message = MISFITS[case]
    config["init"] = str(exported[0])
    with pytest.raises(UserError, match=message):
        open_start(config, make_recipe(config, RUN), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": 4}, r"set config\.model\.patch_size=8\."),
        ({"image_size": 16}, r"set config\.model\.image_size=32 \(positions are"),
        (
            {"heads": 2},
            r"set config\.model\.heads=1 or, if .* heads is wrong.* sp_jax.export",
        ),
        (
            {"position": "sincos"},
            r"set config\.model\.position=learned, config\.model\.image_size=32 \(",
        ),
    ],
)
def test_a_vit_that_does_not_fit(tmp_path, changes, message):
    model = VIT | {"patch_size": 8, "image_size": 32}
    config = make_config("simclr") | {"model": model, "image_size": 32}
    recipe, state, _ = draw(config)
    backbone = recipe.freeze(state.params, state.method_state)
    path = weights.save(backbone, tmp_path / "vit.safetensors", "timm")
    config |= {"model": model | changes, "init": str(path)}
    with pytest.raises(UserError, match=message):
        open_start(config, make_recipe(config, RUN), tmp_path)


def test_other_colours_are_told(exported, tmp_path, caplog):
    config = make_config(init=exported[0])
    config["augment"]["mean"] = (0.5, 0.5, 0.5)
    open_start(config, make_recipe(config, RUN), tmp_path)
    (said,) = [x.message for x in caplog.records if x.levelname == "WARNING"]
    assert (
        "config.augment.mean=(0.485, 0.456, 0.406), but the images of this run" in said
    )


def train(workdir, evaluate=False, **changes):
    config = tiny.get_config()
    config.epochs = 0.02  # 5 steps
    config.optimizer.warmup_epochs = 0.01
    config.checkpoint.every = 3
    if not evaluate:
        config.evals = {}
    config.update(changes)
    main.run(config, workdir)
    return workdir


def test_a_run_that_starts_from_a_run(tmp_path, caplog):
    caplog.set_level("INFO")
    first = train(tmp_path / "first")
    changes = dict(seed=1, init=str(first), init_heads=True)
    second = train(tmp_path / "second", evaluate=True, **changes)
    said = next(x for x in caplog.messages if x.startswith("Starts from"))
    assert "width 8" in said and said.endswith("Taken: backbone, projector.")
    trained = sp_jax.load(first)
    digest = fingerprint(trained.network(heads=True))
    record = json.loads((second / "config.json").read_text())
    assert record["init"] == str(first) and record["init_weights"] == digest

    # Without a step it is the loaded network, in training and afterwards.
    begun = sp_jax.load(second, untrained=True)
    assert begun.fingerprint() == trained.fingerprint() and begun.info["step"] == 0
    assert fingerprint(begun.heads) == fingerprint(trained.heads)
    written = json.loads((second / "eval/untrained/knn.json").read_text())
    assert written["weights"] == trained.identity()

    # A resumed run does not need them any more, and no others may take their place.
    moved, last = tmp_path / "moved", sp_jax.load(second).fingerprint()
    shutil.move(first, moved)
    shutil.rmtree(second / "checkpoints/5")
    train(second, **changes)
    assert sp_jax.load(second).fingerprint() == last
    for other, message in (
        ({"init": "", "init_heads": False}, "init_weights = .*, but now it is None"),
        ({"init": str(moved / "checkpoints/3")}, f"init_weights = '{digest}', but now"),
        ({"init_heads": False}, "config.init: There is no folder"),
    ):
        with pytest.raises(UserError, match=message):
            train(second, **changes | other)
    train(second, **changes | {"init": str(moved)})
    with pytest.raises(UserError, match="config.init: There is no folder"):
        sp_jax.load(second, untrained=True)
    shutil.copytree(second, first)
    with pytest.raises(UserError, match="weights in .* have changed since"):
        sp_jax.load(second, untrained=True)
