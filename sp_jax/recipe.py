"""From the plain numbers of a config to a method, its views and its optimiser.

A value that is None in the config is the method's own default.
"""

import dataclasses
import inspect
import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from sp_jax import methods, models, optim
from sp_jax.augment import Augment, Jigsaw
from sp_jax.backbone import Backbone
from sp_jax.crops import Crop
from sp_jax.models.config import make_backbone
from sp_jax.registry import check_options


class Recipe(NamedTuple):
    """What is trained, on which views, and how. The record that all layers of the code share.

    Attributes:
        method: its functions.
        views: the augmentation of each view; () where batches come ready, as in detection.
        backbone: the module whose variables `method.backbone_variables` gives.
        tx: the gradient transformation; None where a checkpoint is only evaluated.
        schedule: the learning rate as a function of the step; None likewise.
    """

    method: methods.Method
    views: tuple[Augment | Jigsaw, ...]
    backbone: nn.Module
    tx: optax.GradientTransformation | None = None
    schedule: optax.Schedule | None = None

    @property
    def crops(self) -> tuple[Crop, ...]:
        """The crop of each view."""
        return tuple(view.crop for view in self.views)

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        """Parameters and buffers of the method, from a random key."""
        return self.method.init(
            key, [jnp.zeros((2, *view.shape)) for view in self.views]
        )

    def freeze(self, params: Any, state: Any, **info: Any) -> Backbone:
        """The backbone of a run as it is evaluated: size and colours of the first view."""
        view = self.views[0]
        variables = self.method.backbone_variables(params, state)
        heads = self.method.heads(params, state)
        return Backbone(
            self.backbone, variables, view.size, view.mean, view.std, info, heads
        )


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def make_recipe(
    config: Mapping[str, Any], run: methods.RunSize, *, train: bool = True
) -> Recipe:
    """Build all that is trained from a config (see `sp_jax/config.py`).

    Raises:
        ValueError: a name, an option or a value is wrong.
    """
    module = methods.get(config["method"])
    views = view_configs(config)
    model = dict(config["model"])
    chunks = model.pop("chunks", 1)
    sides = [view.shape[-2] for view in views]
    unchunked = backbone = make_backbone(model, config["dtype"], sides, train)
    if chunks != 1:
        backbone = models.Chunked(backbone, chunks, run.batch_size)
    options = _given(config["method_options"])
    # Without the backbone and the run.
    known = list(inspect.signature(module.create).parameters.items())[2:]
    check_options(config["method"], options, dict(known), "config.method_options")
    method = module.create(backbone, run, **options)
    if not isinstance(method, methods.Method):
        raise ValueError(
            f"create() of {config['method']} must return a sp_jax.methods.Method, not a "
            f"{type(method).__name__}."
        )
    optimizer = make_optimizer(config, run) if train else (None, None)
    return Recipe(method, views, unchunked, *optimizer)


def view_configs(config: Mapping[str, Any]) -> tuple[Augment | Jigsaw, ...]:
    """The method's views with the changes of `config.augment`.

    A change reaches every view, but `crop_scale` only those of the full size,
    `local_crop_scale` only the smaller ones, and a jigsaw none that is about crops. Those of
    `config.augment_second` reach the second view alone.

    Raises:
        ValueError: a value is wrong, or there is no view that a change would reach.
    """
    module, size = methods.get(config["method"]), config["image_size"]
    changes = _given(config["augment"])
    arguments = {}
    if "local_crops" in inspect.signature(module.views).parameters:
        if "local_crops" in changes:
            arguments["local_crops"] = changes.pop("local_crops")
    elif local := {"local_crops", "local_crop_scale"} & changes.keys():
        raise ValueError(
            f"{config['method']} has no local crops: leave config.augment.{min(local)} "
            "out."
        )
    local_scale = changes.pop("local_crop_scale", None)

    # Configs of before have no changes of the second view.
    second = _given(config.get("augment_second", {}))
    views = module.views(size, **arguments)
    crops = [key for key in second if "crop" in key]
    if crops and isinstance(views[1], Jigsaw):
        raise ValueError(
            f"The second view of {config['method']} is a puzzle of patches: leave "
            f"config.augment_second.{crops[0]} out."
        )
    # Where their number was given, 0 switches them off.
    known = "local_crops" in arguments or any(view.size < size for view in views)
    if local_scale is not None and not known:
        raise ValueError(
            "There are no local crops: leave config.augment.local_crop_scale out, or set "
            "config.augment.local_crops."
        )

    def change(place, view):
        own = changes | (second if place == 1 else {})
        if isinstance(view, Jigsaw):
            # Its crop is the puzzle's, not a view's.
            own = {k: v for k, v in own.items() if not k.startswith("crop")}
            return dataclasses.replace(view, view=dataclasses.replace(view.view, **own))
        if view.size < size:
            own.pop("crop_scale", None)
            if local_scale is not None:
                own["crop_scale"] = local_scale
        return dataclasses.replace(view, **own)

    return tuple(itertools.starmap(change, enumerate(views)))


_OPTIMIZER_KEYS = ("learning_rate", "warmup_epochs", "weight_decay", "momentum")


def make_optimizer(
    config: Mapping[str, Any], run: methods.RunSize
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Build the gradient transformation and the schedule of its learning rate.

    The config gives the learning rate for a batch of 256; it is scaled to the batch.

    Raises:
        ValueError: the optimiser is unknown, one of its keys is missing, or the warm-up is
            too long.
    """
    module = methods.get(config["method"])
    recipe = module.OPTIMIZER | _given(config["optimizer"])
    if absent := [name for name in _OPTIMIZER_KEYS if name not in recipe]:
        raise ValueError(
            f"OPTIMIZER of the method {config['method']} has no {', '.join(absent)}: add it "
            "there, or as config.optimizer."
        )
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
    tx = optim.by_rules(
        optim.get(recipe["name"]),
        module.RULES,
        schedule,
        weight_decay=weight_decay,
        momentum=recipe["momentum"],
        clip=recipe.get("clip", 0.0),
        peak=peak,
        steps_per_epoch=run.steps_per_epoch,
    )
    return tx, schedule
