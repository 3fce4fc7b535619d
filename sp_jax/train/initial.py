"""The weights that a run starts from: `config.init`."""

import logging
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

import sp_jax
from sp_jax.backbone import Backbone, fingerprint
from sp_jax.errors import UserError
from sp_jax.models.config import find_changes
from sp_jax.recipe import Recipe
from sp_jax.train.checkpoint import newest_sound_step, read_meta
from sp_jax.weights import describe

PyTree = Any


class Start(NamedTuple):
    """The weights that a run starts from.

    Attributes:
        record: its entries in config.json: "init", the path; "init_heads"; and
            "init_weights", SHA-256 of what was taken. {}: random weights.
        network: what was taken, see `Method.start_from`. None: nothing, or the run resumes
            from a checkpoint, which has it.
    """

    record: dict[str, Any]
    network: PyTree | None


def open_start(
    config: Mapping[str, Any], recipe: Recipe, workdir: pathlib.Path
) -> Start:
    """Load the weights that a config starts from, check that they fit, and log what is taken.

    A run that resumes with the same path does not read it again.

    Raises:
        UserError: they do not exist, or do not fit the config.
    """
    heads = config["init_heads"]
    if not config["init"]:
        if heads:
            raise UserError("config.init_heads needs config.init, the path of a run.")
        return Start({}, None)
    path = str(pathlib.Path(config["init"]).absolute())
    record = {"init": path, "init_heads": heads}
    step = newest_sound_step(workdir / "checkpoints")
    if step is not None:
        before = read_meta(workdir / "checkpoints" / str(step))["config"]
        if all(before.get(name) == value for name, value in record.items()):
            return Start(record | {"init_weights": before["init_weights"]}, None)
    backbone, network = _load(record, config["method"], recipe)
    record["init_weights"] = digest = fingerprint(network)
    parts, taken = _draw(recipe)[0].keys(), network["params"].keys()
    said = {"Taken": taken, "At random": parts - taken}
    said["Left out"] = backbone.heads.get("params", {}).keys() - taken
    words = (f"{what}: {', '.join(sorted(x))}." for what, x in said.items() if x)
    logging.info(
        f"Starts from {path} (SHA-256 {digest[:8]}). {describe(backbone)} {' '.join(words)}"
    )
    for name in ("mean", "std"):
        own, theirs = getattr(recipe.views[0], name), getattr(backbone, name)
        if not backbone.info.get("guessed") and not np.allclose(own, theirs, atol=0.01):
            logging.warning(
                f"The weights are for images with config.augment.{name}={theirs}, but the "
                f"images of this run have {own}."
            )
    return Start(record, network)


def load_again(
    config: Mapping[str, Any], recipe: Recipe, where: pathlib.Path
) -> PyTree | None:
    """The weights that the run of a saved config started from; None: random weights.

    Raises:
        UserError: they are missing or have changed.
    """
    if not config.get("init"):
        return None
    _, network = _load(config, config["method"], recipe)
    if fingerprint(network) != config["init_weights"]:
        raise UserError(
            f"The weights in {config['init']} have changed since the run of {where} "
            "started from them: put the old ones back to get its network before the first "
            "step."
        )
    return network


def _load(
    record: Mapping[str, Any], method: str, recipe: Recipe
) -> tuple[Backbone, PyTree]:
    """A backbone and the part of its network that is taken; UserError if it does not fit."""
    path = record["init"]
    try:
        backbone = sp_jax.load(path)
    except UserError as error:
        raise UserError(f"config.init: {error}") from error
    if record["init_heads"]:
        theirs = backbone.info.get("config", {}).get("method")
        if theirs != method:
            what = f"a run of {theirs}" if theirs else "not a run"
            raise UserError(
                f"config.init_heads takes the heads of a run of {method}, but {path} is "
                f"{what}: leave it out to start from the backbone alone."
            )
    module, network = backbone.module, backbone.network(record["init_heads"])
    changes = find_changes(recipe.backbone, module)
    if changes is None:
        raise UserError(
            f"config.init: {path} is a {module.describe()}, which is not the network of "
            "config.model: set config.model to the network of its run."
        )
    if changes:
        keys = ", ".join(f"config.model.{key}={x}" for key, x in changes.items())
        sides = " (positions are interpolated to images of config.image_size)"
        guess = " or, if the number of heads is wrong, give it to sp_jax.export --heads"
        raise UserError(
            f"config.init: {path} is a {module.describe()}, and config.model is a "
            f"{recipe.backbone.describe()}: set {keys}{sides * ('image_size' in changes)}"
            f"{guess * ('heads' in changes)}."
        )
    try:
        jax.eval_shape(recipe.method.start_from, *_draw(recipe), network)
    except ValueError as error:
        raise UserError(f"config.init: {path} does not fit: {error}.") from error
    return backbone, jax.device_get(network)


def _draw(recipe: Recipe) -> tuple[PyTree, PyTree]:
    """The shapes of a method's random variables."""
    return jax.eval_shape(recipe.init, jax.random.key(0))
