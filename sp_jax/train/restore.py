"""Load the backbone in a checkpoint, which describes itself, from its path."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp

from sp_jax.backbone import Backbone
from sp_jax.errors import UserError
from sp_jax.json_file import read_json
from sp_jax.methods import RunSize
from sp_jax.methods.base import shapes_by_path
from sp_jax.recipe import Recipe, make_recipe
from sp_jax.registry import ImportFailed
from sp_jax.sharding import make_mesh
from sp_jax.train import checkpoint
from sp_jax.train.folders import explain_no_run
from sp_jax.train.initial import load_again
from sp_jax.train.step import init_state
from sp_jax.validate import flatten

# Options that count parts, each of which has its own arrays or a view.
_PARTS = re.compile(r"depth|num_heads|\w+_layers|local_crops")


def find_checkpoint(path: str | os.PathLike) -> pathlib.Path:
    """The folder of one step: path itself, or the newest intact step of a run.

    The run is given by its folder, or by the folder `checkpoints` in it.

    Raises:
        UserError: there is no checkpoint, or the one asked for is damaged.
    """
    given, path = pathlib.Path(path), pathlib.Path(path).absolute()
    if path.parent.name == "checkpoints" and path.name.isdecimal():
        damage = checkpoint.find_damage(path) if path.is_dir() else "it does not exist"
        if damage:
            steps = map(str, reversed(checkpoint.find_steps(path.parent)))
            others = ", ".join(step for step in steps if step != path.name)
            what = f"choose another step: {others}" if others else "there is no other"
            raise UserError(f"Checkpoint {given} cannot be used ({damage}): {what}.")
        return path
    folder = path.parent if path.name == "checkpoints" else path
    steps = folder / "checkpoints"
    if not checkpoint.find_steps(steps):
        if steps.is_file():
            text = f"{steps} is a file, but it must be a folder of checkpoints."
            raise UserError(text)
        if (folder / "config.json").is_file():
            raise UserError(
                f"The run in {given} has not saved a checkpoint yet: let it train on."
            )
        raise UserError(explain_no_run(given))
    step = checkpoint.newest_sound_step(steps)
    if step is None:
        raise UserError(
            f"There is no intact checkpoint in {steps}: restore it, or train again."
        )
    return steps / str(step)


def load_backbone(path: str | os.PathLike, untrained: bool = False) -> Backbone:
    """Load the frozen backbone of a run's newest checkpoint, or of one `checkpoints/STEP`.

    Its info holds the checkpoint's meta data, such as "config", and "step". `untrained` gives
    the backbone of step 0 instead, made again from config, seed and the weights of the start.

    Raises:
        UserError: there is no checkpoint, or it is damaged, not of a pre-training, or of a
            version whose description this one does not understand.
    """
    directory = find_checkpoint(path)
    meta = read_json(directory / "meta" / "metadata")
    config, run = meta.get("config"), meta.get("run")
    if isinstance(config, dict) and "method" not in config and "classes" in meta:
        raise UserError(
            f"{directory} holds a detector: give the run that its backbone came from."
        )
    try:
        if not isinstance(config, dict) or not isinstance(run, dict):
            raise ValueError("it has no config, or no lengths of its run")
        tree = ocp.PyTreeCheckpointHandler().metadata(directory / "state").tree
        saved = shapes_by_path(tree)
        _check_size(config, saved)
        recipe = make_recipe(config, RunSize(**run), train=untrained)
        part = _abstract(recipe)
        for name, shape in shapes_by_path(part).items():
            if saved.get(name) != shape:
                there = f"it has {saved[name]}" if name in saved else "there is none"
                text = f"its config gives {name} the shape {shape}, but {there}"
                raise ValueError(text)
    except ImportFailed as error:
        text = f"Checkpoint {directory} cannot be opened. {error}"
        modules = meta.get("modules")
        if isinstance(modules, dict) and (known := set(modules.values())):
            text += f" The run was trained with modules in {', '.join(sorted(known))}."
        raise UserError(text) from error
    except Exception as error:  # Another version's description may break anything.
        why = f"it has no {error}" if isinstance(error, KeyError) else error
        why = str(why or type(error).__name__).splitlines()[0].rstrip(".")
        raise UserError(
            f"Checkpoint {directory} does not fit this version of sp_jax ({why}): use the "
            "version that wrote it, as its meta/metadata says."
        ) from error
    if untrained:
        network = load_again(config, recipe, directory)
        mesh = make_mesh(jax.local_devices())
        # The whole state: a program without the optimiser could round differently.
        state = init_state(recipe, config["seed"], mesh, network)
        return recipe.freeze(state.params, state.method_state, **meta | {"step": 0})
    restore = ocp.args.PyTreeRestore(
        item=part,
        partial_restore=True,
        restore_args=ocp.checkpoint_utils.construct_restore_args(part),
    )
    with ocp.PyTreeCheckpointer() as reader:
        loaded = reader.restore(directory / "state", args=restore)
    backbone = recipe.freeze(loaded["params"], loaded["method_state"])
    info = meta | {"step": int(directory.name)}
    return dataclasses.replace(backbone, info=info)


def _abstract(recipe: Recipe) -> dict[str, Any]:
    """Shapes and types of a method's variables, for one device."""
    params, method_state = jax.eval_shape(recipe.init, jax.random.key(0))
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device),
        {"params": params, "method_state": method_state},
    )


def _check_size(config: Mapping[str, Any], saved: dict[str, tuple[int, ...]]) -> None:
    """Refuse a network far larger than the saved arrays: building it could take forever."""
    most = max(4096, *(side for shape in saved.values() for side in shape))
    sections = ("model", "method_options", "augment")
    # What the options of a user's own network mean is unknown.
    if "." in str(config["model"].get("name")):
        sections = sections[1:]
    for name, value in flatten({key: config[key] for key in sections}).items():
        parts = _PARTS.fullmatch(name.rpartition(".")[2])
        limit = len(saved) if parts else most
        large = isinstance(value, int | float) and value > limit
        if large and (parts or name.startswith("model.")):
            raise ValueError(f"config.{name} is {value}, for {len(saved)} arrays")
    if config["image_size"] > most:
        raise ValueError(f"config.image_size is {config['image_size']}")
