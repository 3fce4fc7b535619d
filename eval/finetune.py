r"""Fine-tuning: the whole backbone and a linear classifier, trained on labelled images.

The classifier starts at zero on the pre-trained features; views are random crops and
flips; the learning rate falls along a cosine. ResNets are trained by SGD, after SimCLR
(https://arxiv.org/abs/2002.05709, appendix B.8); vision transformers by AdamW, with a
learning rate that falls from the classifier to the first layer, after BEiT
(https://arxiv.org/abs/2106.08254). The test split is scored once, at the end.

  python -m eval.finetune --checkpoint=RUN --dataset=emoji \
    --train_split=probe_train --test_split=probe_test --target=subcategory
"""

import dataclasses
import sys
from typing import Any

import jax
import jax.numpy as jnp

from eval import cli
from eval import options as kinds
from eval.evaluator import Evaluator
from eval.supervised import backbone_of, train_and_test, trainable, whole_batch
from eval.task import Task, TaskOptions, open_task
from sp_jax import optim
from sp_jax.errors import UserError
from sp_jax.features import Extractor
from sp_jax.optim.rules import Rule

# Of convolutional networks and of transformers; learning rates are for a batch of 256.
_SGD = dict(name="sgd", learning_rate=0.05, weight_decay=0.0, layer_decay=1.0)
_ADAMW = dict(name="adamw", learning_rate=5e-4, weight_decay=0.05, layer_decay=0.75)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(TaskOptions):
    """The options, for a config or the command line.

    Attributes:
      epochs: passes over the training images.
      warmup_epochs: in which the learning rate rises.
      batch_size: images per step; all of them if there are fewer.
      learning_rate: peak for a batch of 256; 0 is 0.05 for a ResNet, 0.0005 for a ViT.
      layer_decay: learning rate of a layer over that of the next; 0 is 1 (ResNet), 0.75 (ViT).
      weight_decay: of kernels; below 0 it is 0 for a ResNet, 0.05 for a ViT.
      crop_scale: smallest area of a random crop, as a share of the image's.
      seed: of the order of the images and of the crops.
    """

    epochs: kinds.Count = 30
    warmup_epochs: kinds.CountOrZero = 3
    batch_size: kinds.Count = 256
    learning_rate: kinds.NotNegative = 0.0
    layer_decay: kinds.Fraction = 0.0
    weight_decay: float = -1.0
    crop_scale: kinds.PositiveFraction = 0.2
    seed: kinds.Seed = 0


def create(**options: Any) -> Evaluator:
    """An evaluator that returns {"accuracy": top-1 on the test split, in [0, 1]}.

    Raises:
      UserError: when called: the network is not a `Backbone`, or the training diverged.
    """
    settings = kinds.read_options(Options, options)
    if settings.warmup_epochs >= settings.epochs:
        raise UserError(
            f"epochs must be more than warmup_epochs, not {settings.epochs} and "
            f"{settings.warmup_epochs}."
        )
    task = open_task(settings)

    def evaluate(extractor: Extractor, step: int) -> dict[str, float]:
        backbone_of(extractor, "Fine-tuning")
        return {"accuracy": _finetune(extractor, task, settings)}

    def told(value: float, automatic: bool) -> str:
        return "by network" if automatic else kinds.shown(value)

    rate = told(settings.learning_rate, settings.learning_rate == 0)
    layers = told(settings.layer_decay, settings.layer_decay == 0)
    decay = told(settings.weight_decay, settings.weight_decay < 0)
    own = kinds.changed(settings, "warmup_epochs")
    protocol = (
        f"fine-tuning, {settings.epochs} epochs batch {settings.batch_size}, rate {rate}, "
        f"layer decay {layers}, weight decay {decay}, crops from "
        f"{kinds.shown(settings.crop_scale)} and flips (seed {settings.seed}){own}, "
        f"{task.text}"
    )
    return Evaluator(protocol, evaluate, task.accuracies("accuracy"), task.stores)


def _finetune(extractor: Extractor, task: Task, settings: Options) -> float:
    """Train a copy of the backbone with a classifier on it; the test accuracy."""
    module = trainable(extractor.backbone.module)
    size = whole_batch(len(task.train_rows), settings.batch_size)
    steps = len(task.train_rows) // size
    default = _ADAMW if module.is_transformer else _SGD
    peak = settings.learning_rate or default["learning_rate"]
    peak = optim.linear_scaling(peak, size)
    length, warmup = settings.epochs * steps, settings.warmup_epochs * steps
    schedule = optim.warmup_cosine(peak, length, warmup)
    rules = layer_rules(module, settings.layer_decay or default["layer_decay"])
    given = settings.weight_decay
    decay = default["weight_decay"] if given < 0 else given
    kind = optim.get(default["name"])
    tx = optim.by_rules(kind, rules, schedule, weight_decay=decay)

    def init(variables, width):
        shape = width, task.num_classes
        head = {"kernel": jnp.zeros(shape), "bias": jnp.zeros(task.num_classes)}
        params = {"backbone": variables["params"], "head": head}
        return params, variables.get("batch_stats", {})

    def apply(params, stats, _, x, train):
        variables = {"params": params["backbone"], "batch_stats": stats}
        if train:
            features, new = module.apply(variables, x, True, mutable=["batch_stats"])
            stats = new.get("batch_stats", {})
        else:
            features = module.apply(variables, x, False)
        head = params["head"]
        return features @ head["kernel"] + head["bias"], stats

    return train_and_test(
        extractor,
        task,
        init,
        apply,
        tx,
        smallest_crop=settings.crop_scale,
        key=jax.random.key(settings.seed),
        epochs=settings.epochs,
        batch_size=size,
        seed=settings.seed,
        what="fine-tuning",
        diverged="Fine-tuning diverged in epoch {epoch}: lower learning_rate.",
    )


def layer_rules(module: Any, layer_decay: float) -> list[Rule]:
    """Rules that give a layer `layer_decay`, in (0, 1], times the rate of the next one.

    A ViT's layers are its embeddings, its blocks, and the last norm with the classifier; a
    ResNet's its stem, its four stages, and the classifier.
    """
    layers = [f"^backbone/({layer})" for layer in module.layers()]
    if module.is_transformer:
        layers[-1] = f"({layers[-1]}|^head/)"
    else:
        layers.append("^head/")
    rules = []
    for i, layer in enumerate(reversed(layers)):
        factor = layer_decay**i
        rules.append(Rule(rf"{layer}.*(?<=kernel)$", factor=factor))
        rules.append(Rule(layer, decay=False, adapt=False, factor=factor))
    return rules


if __name__ == "__main__":
    cli.main("finetune", sys.modules[__name__])
