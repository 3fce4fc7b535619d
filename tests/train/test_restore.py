"""Load a backbone from a path; errors for other folders, damage and other versions."""

import copy
import json
import os

import jax
import jax.numpy as jnp
import pytest

import sp_jax
from sp_jax.errors import UserError
from sp_jax.methods import RunSize
from sp_jax.recipe import make_recipe
from sp_jax.train import checkpoint, restore
from sp_jax.train.restore import find_checkpoint
from tests.train import tiny


@pytest.fixture
def runs(tmp_path):
    """Two runs in a folder, the steps 10, 20 and 30 of one of them; it is damaged at 30."""
    for name in ("first", "second"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.json").write_text("{}")
    for step in ("10", "20", "30"):
        folder = tmp_path / "runs/first/checkpoints" / step
        (folder / "meta").mkdir(parents=True)
        (folder / "meta/metadata").write_text("{}")
        checkpoint.write_manifest(folder)
    (folder / "meta/metadata").write_text("[]")
    return tmp_path / "runs"


@pytest.mark.parametrize("path", ["", "checkpoints", "checkpoints/20"])
def test_the_newest_sound_step(runs, path):
    assert find_checkpoint(runs / "first" / path) == runs / "first/checkpoints/20"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nothere", "There is no folder .*runs/nothere"),
        ("", "folder of runs: give one of .*runs/first, .*runs/second"),
        ("..", r"folder of runs: give one of .*runs/first"),
        ("second", "run in .*second has not saved a checkpoint yet"),
        ("first/config.json", "config.json is a file: give the folder"),
        ("first/checkpoints/200", "does not exist.*choose another step: 10, 20, 30"),
        ("first/checkpoints/30", "SHA-256 differs.*choose another step: 10, 20"),
        ("first/checkpoints/20/meta", "meta holds no run"),
        ("second/checkpoints/5", "it does not exist.*there is no other"),
    ],
)
def test_what_is_no_checkpoint_is_said(runs, path, message):
    with pytest.raises(UserError, match=message) as error:
        find_checkpoint(runs / path)
    assert "\n" not in str(error.value)


def test_no_folder_of_checkpoints_and_no_intact_one(runs):
    (runs / "second/checkpoints").write_text("")
    with pytest.raises(UserError, match="second/checkpoints is a file"):
        find_checkpoint(runs / "second")
    for step in ("10", "20"):
        os.remove(runs / "first/checkpoints" / step / "MANIFEST.sha256")
    with pytest.raises(UserError, match="no intact checkpoint in .*first"):
        find_checkpoint(runs / "first")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint of zeros, and what stands in its description."""
    folder = tmp_path_factory.mktemp("saved")
    config = json.loads(json.dumps(tiny.get_config().to_dict()))
    run = RunSize(total_steps=9, steps_per_epoch=3, batch_size=16, num_images=48)
    recipe = make_recipe(config, run)
    views = [
        jax.ShapeDtypeStruct((2, *view.shape), jnp.float32) for view in recipe.views
    ]
    shapes = jax.eval_shape(recipe.method.init, jax.random.key(0), views)
    params, method_state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    meta = {"config": config, "run": run._asdict(), "versions": {}}
    checkpoints = checkpoint.Checkpoints(
        folder / "checkpoints", keep_last=2, keep_every=0
    )
    checkpoints.save(3, {"params": params, "method_state": method_state}, meta)
    checkpoints.close()
    return folder, meta


def describe(folder, meta):
    """Put another description into the checkpoint."""
    step = folder / "checkpoints/3"
    (step / "meta/metadata").write_text(json.dumps(meta))
    (step / "MANIFEST.sha256").unlink()
    checkpoint.write_manifest(step)


def change(meta, path, value):
    *sections, name = path.split(".")
    for section in sections:
        meta = meta[section]
    meta[name] = value


FOREIGN = {
    "unknown option": ("config.method_options.other", 1, "no option 'other'"),
    "unknown method": ("config.method", "new", "no method 'new'"),
    "no lengths": ("run", None, "no lengths"),
    "other lengths": ("run", {"steps": 1}, "steps"),
    "wider": ("config.model.width", 16, "the shape .* but it has"),
    "deeper": ("config.model.name", "resnet34", "but there is none"),
    "a section is lost": ("config.augment", None, "checkpoints/3"),
    "a type": ("config.model", [], "checkpoints/3"),
    "nan": ("config.image_size", None, "checkpoints/3"),
    "a vast image": ("config.image_size", 10**9, "image_size is 1000000000"),
    "layers": ("config.method_options.projection_layers", 10**9, "projection_layers"),
    "views": ("config.augment.local_crops", 10**9, "local_crops"),
    "blocks": (
        "config.model",
        {"name": "vit_tiny", "depth": 10**9, "patch_size": 8, "image_size": 16},
        "depth is 1000000000",
    ),
    "a vast width": (
        "config.model",
        {"name": "vit_tiny", "dim": 3 * 10**9, "positions": "sincos"},
        "dim is 3000000000",
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_description_that_does_not_fit_is_refused(saved, case):
    folder, meta = saved
    path, value, message = FOREIGN[case]
    foreign = copy.deepcopy(meta)
    change(foreign, path, value)
    describe(folder, foreign)
    with pytest.raises(UserError, match=message) as error:
        sp_jax.load(folder)
    said = str(error.value)
    assert "\n" not in said and str(folder / "checkpoints/3") in said


def test_it_loads_where_it_fits(saved):
    folder, meta = saved
    describe(folder, meta)
    backbone = sp_jax.load(folder)
    assert backbone.info == meta | {"step": 3} and backbone.size == 16
    describe(folder, [])
    with pytest.raises(UserError, match="meta/metadata is damaged: it holds list"):
        sp_jax.load(folder)
    describe(folder, {"config": {"dtype": "auto"}, "classes": ["cat"]})
    with pytest.raises(UserError, match="holds a detector"):
        sp_jax.load(folder)


def test_large_numbers_of_a_users_own_network():
    config = {"model": {"name": "my.net", "rope_base": 10_000.0}, "image_size": 64}
    config |= {"method_options": {}, "augment": {}}
    restore._check_size(config, {"params/a": (64, 128)})
    config["model"]["name"] = "vit_tiny"
    with pytest.raises(ValueError, match="rope_base is 10000"):
        restore._check_size(config, {"params/a": (64, 128)})
