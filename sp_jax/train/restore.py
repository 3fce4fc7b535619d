"""A checkpoint explains itself: from a path to the backbone in it."""

import json
import os
import pathlib

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from sp_jax.backbone import Backbone
from sp_jax.errors import UserError
from sp_jax.methods import Run
from sp_jax.recipe import make_recipe
from sp_jax.train import checkpoint


def find_checkpoint(path: str | os.PathLike) -> pathlib.Path:
    """The folder of one step: path itself, or the newest sound step of a run.

    Args:
        path: a run's folder, its `checkpoints` folder, or one step in it.

    Raises:
        UserError: there is no checkpoint, or the one asked for is damaged.
    """
    path = pathlib.Path(path).absolute()
    if path.parent.name == "checkpoints" and path.name.isdecimal():
        damage = checkpoint.find_damage(path) if path.is_dir() else "it does not exist"
        if damage:
            raise UserError(
                f"Checkpoint {path} cannot be used ({damage}): choose another step."
            )
        return path
    steps = path if path.name == "checkpoints" else path / "checkpoints"
    step = checkpoint.newest_sound_step(steps)
    if step is None:
        raise UserError(
            f"There is no intact checkpoint in {steps}: give --checkpoint the folder of "
            "a run, as made by python -m sp_jax.main."
        )
    return steps / str(step)


def load_backbone(path: str | os.PathLike) -> Backbone:
    """Load the frozen backbone of a checkpoint; nothing but its path is needed.

    Args:
        path: a run's folder (its newest checkpoint), or one `checkpoints/STEP`.

    Returns:
        The backbone; its info is what was saved with the checkpoint, among it "config",
        and "step".

    Raises:
        UserError: there is no checkpoint, or it is damaged, or no pre-training's.
    """
    directory = find_checkpoint(path)
    meta = json.loads((directory / "meta" / "metadata").read_text())
    if "method" not in meta["config"]:
        raise UserError(
            f"{directory} is a detector's: give the run that its backbone came from."
        )
    recipe = make_recipe(meta["config"], Run(**meta["run"]))
    images = [jnp.zeros((2, *view.shape)) for view in recipe.views]
    params, method_state = jax.eval_shape(recipe.method.init, jax.random.key(0), images)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    part = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device),
        {"params": params, "method_state": method_state},
    )
    with ocp.PyTreeCheckpointer() as reader:
        loaded = reader.restore(
            directory / "state",
            args=ocp.args.PyTreeRestore(
                item=part,
                partial_restore=True,
                restore_args=ocp.checkpoint_utils.construct_restore_args(part),
            ),
        )
    step = int(directory.name)
    return recipe.freeze(loaded["params"], loaded["method_state"], **meta, step=step)
