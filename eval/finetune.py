r"""Fine-tuning: the whole backbone and a linear classifier, trained on labelled images.

The classifier starts at zero on the pre-trained features; views are random crops and
flips; the rate falls along a cosine. ResNets are trained by SGD, after SimCLR
(https://arxiv.org/abs/2002.05709, appendix B.8); vision transformers by AdamW, with a rate
that falls from the classifier to the first layer, after BEiT
(https://arxiv.org/abs/2106.08254). The test split is scored once, at the end.

  python -m eval.finetune --checkpoint=RUN --dataset=emoji \
    --train_split=probe_train --test_split=probe_test --target=subcategory
"""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from eval import cli
from eval.options import (
    Count,
    CountOrZero,
    Fraction,
    NotNegative,
    PositiveFraction,
    Seed,
    read_options,
)
from eval.task import Evaluator, Task, task_of
from sp_jax import optim
from sp_jax.augment import Augment, augment, preprocess
from sp_jax.backbone import Backbone
from sp_jax.errors import UserError
from sp_jax.features import Extractor, map_rows
from sp_jax.optim.rules import Rule
from sp_jax.sharding import by_batch, make_mesh, replicated

Optimiser = dict[str, Any]

# Learning rates are for a batch of 256.
_CONVOLUTIONAL: Optimiser = {
    "name": "sgd",
    "learning_rate": 0.05,
    "weight_decay": 0.0,
    "layer_decay": 1.0,
}
_TRANSFORMER: Optimiser = {
    "name": "adamw",
    "learning_rate": 5e-4,
    "weight_decay": 0.05,
    "layer_decay": 0.75,
}


class Options(NamedTuple):
    """What a config or the command line may set.

    Attributes:
      dataset: name of an image store.
      train_split: images to train on.
      test_split: images to report on, once.
      target: "label" or an attribute of the store.
      epochs: passes over the training images.
      warmup_epochs: in which the rate rises.
      batch_size: images a step; with fewer images than that, all of them.
      learning_rate: peak for a batch of 256; 0 is 0.05 for a ResNet, 0.0005 for a ViT.
      layer_decay: the rate of a layer over that of the next; 0 is 1 (ResNet), 0.75 (ViT).
      weight_decay: of kernels; below 0 it is 0 for a ResNet, 0.05 for a ViT.
      crop_scale: smallest area of a random crop, as a share of the image's.
      seed: of the order of the images and of the crops.
      image_size: side of the stored images in pixels; that of the run.
      resize: how they were made square, "crop" or "squash"; that of the run.
      max_skipped: share of the images that may be damaged and left out.
      data_dir: where prepared images are kept.
    """

    dataset: str
    train_split: str
    test_split: str
    target: str = "label"
    epochs: Count = 30
    warmup_epochs: CountOrZero = 3
    batch_size: Count = 256
    learning_rate: NotNegative = 0.0
    layer_decay: Fraction = 0.0
    weight_decay: float = -1.0
    crop_scale: PositiveFraction = 0.2
    seed: Seed = 0
    image_size: Count = 64
    resize: str = "crop"
    max_skipped: Fraction = 0.01
    data_dir: str | None = None


def create(**options: Any) -> Evaluator:
    """An evaluator that returns {"accuracy": top-1 on the test split, in [0, 1]}.

    Args:
      **options: see `Options`.

    Raises:
      UserError: the options do not fit the data; when called: the network is no
        `sp_jax.backbone.Backbone`, or the training diverged.
    """
    settings, task = _open(options)

    def evaluate(extractor: Extractor, step: int) -> dict[str, float]:
        backbone = extractor.backbone
        if not isinstance(backbone, Backbone):
            raise UserError("Fine-tuning needs a backbone, not a function of images.")
        predict = finetune(backbone, task, settings)
        predicted = map_rows(
            lambda rows: predict(task.test.read(task.test_rows[rows])),
            len(task.test_rows),
            extractor.batch_size,
        )
        return {"accuracy": float(np.mean(predicted == task.test_labels))}

    return Evaluator(evaluate, _describe(settings, task), (task.train, task.test))


def _describe(settings: Options, task: Task) -> str:
    def shown(value: float, automatic: bool) -> str:
        return "by network" if automatic else f"{value:g}"

    rate = shown(settings.learning_rate, settings.learning_rate == 0)
    layers = shown(settings.layer_decay, settings.layer_decay == 0)
    decay = shown(settings.weight_decay, settings.weight_decay < 0)
    return (
        f"fine-tuning, {settings.epochs} epochs batch {settings.batch_size}, rate {rate}, "
        f"layer decay {layers}, weight decay {decay}, crops from "
        f"{settings.crop_scale:g} and flips (seed {settings.seed}), {task.text}"
    )


def _open(options: dict[str, Any]) -> tuple[Options, Task]:
    settings = read_options(Options, options)
    if settings.warmup_epochs >= settings.epochs:
        raise UserError(
            f"epochs must be more than warmup_epochs, not {settings.epochs} and "
            f"{settings.warmup_epochs}."
        )
    return settings, task_of(settings)


def finetune(
    backbone: Backbone, task: Task, settings: Options
) -> Callable[[np.ndarray], jax.Array]:
    """Train a copy of the backbone with a classifier on it, on all local devices.

    Args:
      backbone: it is not changed.
      task: images and labels.
      settings: see `Options`; nothing of its data is opened again.

    Returns:
      `predict(uint8 [n, S, S, 3]) -> int32 [n]` classes.

    Raises:
      UserError: a loss is NaN or infinite.
    """
    module = backbone.module
    mesh = make_mesh(jax.local_devices())
    size = whole_batch(len(task.train_rows), settings.batch_size, mesh.size)
    steps = len(task.train_rows) // size
    tx = _optimizer(module, settings, size, steps)
    view = crop_and_flip(backbone, settings.crop_scale)

    def logits_of(params, stats, x, train: bool):
        variables = {"params": params["backbone"], "batch_stats": stats}
        if train:
            features, new = module.apply(variables, x, True, mutable=["batch_stats"])
            stats = new.get("batch_stats", {})
        else:
            features = module.apply(variables, x, False)
        head = params["head"]
        return features @ head["kernel"] + head["bias"], stats

    @jax.jit
    def start(variables):
        shape = jax.ShapeDtypeStruct((1, view.size, view.size, 3), jnp.float32)
        (_, width) = jax.eval_shape(
            lambda x: module.apply(variables, x, False), shape
        ).shape
        classes = task.num_classes
        head = {"kernel": jnp.zeros((width, classes)), "bias": jnp.zeros(classes)}
        params = {"backbone": variables["params"], "head": head}
        return params, variables.get("batch_stats", {}), tx.init(params)

    def step(state, number, images, labels):
        key = jax.random.fold_in(jax.random.key(settings.seed), number)
        x = augment(key, images, view)

        def loss_fn(params):
            logits, stats = logits_of(params, state[1], x, True)
            target = jax.nn.one_hot(labels, task.num_classes)
            return optax.softmax_cross_entropy(logits, target).mean(), stats

        params, _, opt_state = state
        (loss, stats), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = tx.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), stats, opt_state), loss

    rows, whole = by_batch(mesh), replicated(mesh)
    step = jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(whole, whole, rows, rows),
        out_shardings=(whole, whole),
    )
    rng = np.random.default_rng(settings.seed)
    with jax.transfer_guard("allow"):
        state = jax.device_put(start(backbone.variables), whole)
        for epoch in range(settings.epochs):
            order = rng.permutation(len(task.train_rows))[: steps * size]
            for i, batch in enumerate(order.reshape(steps, size)):
                images = task.train.read(task.train_rows[batch])
                number = np.int32(epoch * steps + i)
                state, loss = step(state, number, images, task.train_labels[batch])
            # Once an epoch: the device is not waited for in between.
            if not np.isfinite(loss):
                raise UserError(
                    f"Fine-tuning diverged in epoch {epoch + 1}: lower learning_rate."
                )

    params, stats, _ = state

    @jax.jit
    def classify(params, stats, images):
        x = preprocess(images, view.size, view.mean, view.std)
        return jnp.argmax(logits_of(params, stats, x, False)[0], axis=1)

    return lambda images: classify(params, stats, jax.device_put(images, whole))


def whole_batch(count: int, batch_size: int, devices: int) -> int:
    """Images a step: of `count` at most, and the same number on each device.

    Raises:
      UserError: there are fewer images than devices.
    """
    most = min(count, batch_size)
    if most < devices:
        raise UserError(
            f"A batch of {most} images cannot be split over {devices} devices: raise "
            "batch_size, or use fewer devices."
        )
    return most // devices * devices


def crop_and_flip(backbone: Backbone, smallest: float) -> Augment:
    """Random crops and flips only, in the size and colours of the pre-training.

    Args:
      backbone: which was trained so.
      smallest: area of a crop, as a share of the image's.
    """
    return Augment(
        size=backbone.size,
        crop_scale=(smallest, 1.0),
        **{"jitter": 0, "grayscale": 0, "blur": 0},
        mean=backbone.mean,
        std=backbone.std,
    )


def _optimizer(
    module: Any, settings: Options, batch_size: int, steps: int
) -> optax.GradientTransformation:
    """The optimiser of a kind of backbone, with what the options say."""
    default = _TRANSFORMER if module.is_transformer else _CONVOLUTIONAL
    peak = optim.linear_scaling(
        settings.learning_rate or default["learning_rate"], batch_size
    )
    decay = settings.weight_decay
    return optim.get(
        default["name"],
        optim.warmup_cosine(
            peak, settings.epochs * steps, settings.warmup_epochs * steps
        ),
        peak=peak,
        rules=layer_rules(module, settings.layer_decay or default["layer_decay"]),
        weight_decay=default["weight_decay"] if decay < 0 else decay,
    )


def layer_rules(module: Any, layer_decay: float) -> list[Rule]:
    """Rules by which the rate of a layer is `layer_decay` times that of the next.

    A ViT's layers are its embeddings, its blocks, and the last norm with the classifier; a
    ResNet's its stem, its four stages, and the classifier.

    Args:
      module: a backbone of `sp_jax.models`.
      layer_decay: in (0, 1]; 1 is one rate for all.
    """
    layers = [f"^backbone/({layer})" for layer in module.layers()]
    if module.is_transformer:
        layers[-1] = f"({layers[-1]}|^head/)"
    else:
        layers.append("^head/")
    rules = []
    for i, layer in enumerate(reversed(layers)):
        rate = layer_decay**i
        rules.append(Rule(rf"{layer}.*(?<=kernel)$", rate=rate))
        rules.append(Rule(layer, decay=False, adapt=False, rate=rate))
    return rules


if __name__ == "__main__":
    cli.main("finetune", sys.modules[__name__])
