"""From the plain numbers of a config to a method, its views and its optimiser.

A value that is None in the config is the method's own default.
"""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from sp_jax import methods, models, optim
from sp_jax.augment import Augment, Jigsaw
from sp_jax.backbone import Backbone
from sp_jax.registry import check_options


class Recipe(NamedTuple):
    """What is trained, on which views.

    Attributes:
        method: its functions.
        views: the augmentation of each view.
        backbone: the module whose variables `method.frozen` gives.
    """

    method: methods.Method
    views: tuple[Augment | Jigsaw, ...]
    backbone: nn.Module

    def freeze(self, params: Any, state: Any, **info: Any) -> Backbone:
        """The backbone of a run as it is evaluated: size and colours of the first view.

        Args:
            params: of the method.
            state: its buffers.
            **info: where they come from.
        """
        view = self.views[0]
        variables = self.method.frozen(params, state)
        return Backbone(self.backbone, variables, view.size, view.mean, view.std, info)


class Optimizer(NamedTuple):
    """The gradient transformation, and its learning rate as a function of the step."""

    tx: optax.GradientTransformation
    schedule: optax.Schedule


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def compute_dtype(name: str) -> jnp.dtype:
    """The dtype of activations: "auto" is bfloat16 on accelerators, float32 on a CPU.

    Raises:
        ValueError: the name is not auto, float32 or bfloat16.
    """
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    if name not in ("float32", "bfloat16"):
        raise ValueError(f"dtype is {name!r}: use 'auto', 'float32' or 'bfloat16'.")
    return jnp.dtype(name)


def make_recipe(config: Mapping[str, Any], run: methods.Run) -> Recipe:
    """Build the method and its views from a config (see `sp_jax/config.py`).

    Raises:
        ValueError: a name, an option or a value is wrong.
    """
    module = methods.get(config["method"])
    model = _model_options(config["model"])
    chunks = model.pop("chunks", 1)
    plain = backbone = models.get(**model, dtype=compute_dtype(config["dtype"]))
    if chunks != 1:
        backbone = models.Chunked(backbone, chunks, run.batch_size)
    options = _given(config["method_options"])
    known = list(inspect.signature(module.create).parameters.items())[2:]
    check_options(config["method"], options, dict(known), "config.method_options")
    views = make_views(config)
    for view in views:
        side = view.shape[-2]
        if side % plain.patch_size:
            raise ValueError(
                f"views of {side} px (config.image_size is {config['image_size']}, local "
                "crops have half of it) cannot be cut into patches of "
                f"{plain.patch_size} px (config.model.patch_size): choose a multiple."
            )
    if "." in model["name"]:
        models.check_features(model["name"], plain, views[0].shape[-3:])
    method = module.create(backbone, run, **options)
    if not isinstance(method, methods.Method):
        raise ValueError(
            f"create() of {config['method']} has to return a sp_jax.methods.Method, not a "
            f"{type(method).__name__}."
        )
    return Recipe(method, views, plain)


def _model_options(model: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a backbone; one outside of the project need not have a ResNet's.

    `sp_jax/config.py` has these in all configs, and no command line can take them away.
    """
    model = dict(model)
    if "." in model["name"]:
        known = models.known_options(model["name"])
        for option in {"width", "stem", "zero_init_residual"} - known.keys():
            model.pop(option, None)
    return model


def make_views(config: Mapping[str, Any]) -> tuple[Augment | Jigsaw, ...]:
    """The method's views with the changes of `config.augment`.

    A change reaches every view, but `crop_scale` only those of the full size,
    `local_crop_scale` only the smaller ones, and none of the crop's a jigsaw.

    Raises:
        ValueError: a value is wrong, or the method has no local crops.
    """
    module, size = methods.get(config["method"]), config["image_size"]
    changes = _given(config["augment"])
    local = {"local_crops", "local_crop_scale"} & changes.keys()
    arguments = {}
    if "local_crops" in inspect.signature(module.views).parameters:
        if (count := changes.pop("local_crops", None)) is not None:
            arguments["local_crops"] = count
    elif local:
        raise ValueError(
            f"{config['method']} has no local crops: leave config.augment.{min(local)} "
            "out."
        )
    local_scale = changes.pop("local_crop_scale", None)

    def change(view):
        if isinstance(view, Jigsaw):
            # Its crop is the puzzle's, not a view's.
            colours = {k: v for k, v in changes.items() if not k.startswith("crop")}
            inner = dataclasses.replace(view.view, **colours)
            return dataclasses.replace(view, view=inner)
        if view.size < size:
            rest = {k: v for k, v in changes.items() if k != "crop_scale"}
            if local_scale is not None:
                rest["crop_scale"] = local_scale
            return dataclasses.replace(view, **rest)
        return dataclasses.replace(view, **changes)

    return tuple(change(view) for view in module.views(size, **arguments))


def make_optimizer(config: Mapping[str, Any], run: methods.Run) -> Optimizer:
    """Build the optimiser; the rate is given for a batch of 256 and scaled to the batch.

    Raises:
        ValueError: the optimiser is unknown or the warm-up is too long.
    """
    module = methods.get(config["method"])
    recipe = module.OPTIMIZER | _given(config["optimizer"])
    peak = optim.linear_scaling(recipe["learning_rate"], run.batch_size)
    schedule = optim.warmup_cosine(
        peak,
        run.total_steps,
        round(recipe["warmup_epochs"] * run.steps_per_epoch),
        final=recipe.get("final_factor", 0.0) * peak,
        hold=run.steps_per_epoch if recipe.get("by_epoch") else 1,
    )
    weight_decay = recipe["weight_decay"]
    if recipe.get("final_weight_decay", weight_decay) != weight_decay:
        weight_decay = optim.cosine(
            weight_decay, recipe["final_weight_decay"], run.total_steps
        )
    tx = optim.get(
        recipe["name"],
        schedule,
        peak=peak,
        rules=module.RULES,
        weight_decay=weight_decay,
        momentum=recipe["momentum"],
        clip=recipe.get("clip", 0.0),
        steps_per_epoch=run.steps_per_epoch,
    )
    return Optimizer(tx, schedule)
