"""A checkpoint explains itself: from a path to a function that makes features."""

import json
import os
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from input_pipeline.errors import UserError
from sp_jax.augment import preprocess
from sp_jax.methods import Run
from sp_jax.recipe import Recipe, make_recipe
from sp_jax.train import checkpoint
from sp_jax.train.step import TrainState, make_features_fn


def make_preprocess(recipe: Recipe) -> Callable[[jax.Array], jax.Array]:
    """What evaluation does to images: the size and the colours of the first view."""
    view = recipe.views[0]
    return lambda images: preprocess(images, view.size, view.mean, view.std)


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


def load_features(
    path: str | os.PathLike,
) -> tuple[Callable[[np.ndarray], jax.Array], dict]:
    """Load the frozen network of a checkpoint; nothing but its path is needed.

    Args:
        path: a run's folder (its newest checkpoint), or one `checkpoints/STEP`.

    Returns:
        `features_fn(uint8 [n, S, S, 3]) -> float32 [n, D]`, where n is a multiple of the
        number of local devices, and what was saved with the checkpoint, among it
        "config" and "step".

    Raises:
        UserError: there is no checkpoint, or it is damaged.

    Example:
        >>> features_fn, info = load_features("runs/quickstart")  # doctest: +SKIP
    """
    directory = find_checkpoint(path)
    meta = json.loads((directory / "meta" / "metadata").read_text())
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
    state = TrainState(None, loaded["params"], loaded["method_state"], None, None)
    features_fn = make_features_fn(recipe.method, state, make_preprocess(recipe))
    return features_fn, {**meta, "step": int(directory.name)}
