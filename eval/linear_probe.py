r"""Linear probe: multinomial logistic regression on frozen features.

All combinations of learning rate and weight decay are fitted at once. The combination
is chosen on a part of the training split; the probe is then fitted on the whole of it
and the test split is scored once.

    loss = mean cross-entropy(x W + b) + weight_decay / 2 |W|^2

x is standardised with the mean and deviation of the rows fitted on. SGD with Nesterov
momentum 0.9 and a cosine schedule to zero starts from W = b = 0, as is usual since
SimCLR (https://arxiv.org/abs/2002.05709). The optimum is that of scikit-learn's
LogisticRegression(C=1 / (n * weight_decay)).

  python -m eval.linear_probe --checkpoint=RUN --dataset=emoji \
    --train_split=probe_train --test_split=probe_test --target=subcategory
"""

import functools
import itertools
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from eval import cli
from eval.features import (
    Evaluator,
    Extractor,
    Task,
    map_rows,
    moments,
    open_task,
    standardize,
)
from input_pipeline.errors import UserError

# Largest array of logits of one scoring call, in elements (64 MiB of float32).
_BUDGET = 2**24


class Options(NamedTuple):
    """What a config or the command line may set.

    Attributes:
      dataset: name of an image store.
      train_split: images to fit and choose on.
      test_split: images to report on, once.
      target: "label" or an attribute of the store.
      learning_rates: the peak learning rates to try.
      weight_decays: the L2 penalties to try, each with each learning rate.
      epochs: passes over the images fitted on.
      batch_size: images a step; with fewer images than that, all of them.
      validation: part of the training split that chooses, between 0 and 1.
      seed: of the validation part and of the order of the images.
      image_size: side of the stored images in pixels; that of the run.
      resize: how they were made square, "crop" or "squash"; that of the run.
      max_skipped: share of the images that may be damaged and left out.
      data_dir: where prepared images are kept.
    """

    dataset: str
    train_split: str
    test_split: str
    target: str = "label"
    learning_rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    weight_decays: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    epochs: int = 100
    batch_size: int = 256
    validation: float = 0.2
    seed: int = 0
    image_size: int = 64
    resize: str = "crop"
    max_skipped: float = 0.01
    data_dir: str | None = None


class Probes(NamedTuple):
    """G linear classifiers on standardised features, and the standardisation.

    Attributes:
      mean: float32 [D], subtracted from a feature.
      scale: float32 [D], divides it then.
      kernel: float32 [G, D, C].
      bias: float32 [G, C].
    """

    mean: np.ndarray
    scale: np.ndarray
    kernel: jax.Array
    bias: jax.Array


class Choice(NamedTuple):
    """The outcome of the sweep.

    Attributes:
      learning_rate: of the chosen point.
      weight_decay: of the chosen point.
      val_accuracy: of the chosen point, in [0, 1].
      grid: float [learning rates, weight decays], validation accuracy of every point;
        -1 where the fit diverged.
    """

    learning_rate: float
    weight_decay: float
    val_accuracy: float
    grid: np.ndarray


def create(**options: Any) -> Evaluator:
    """An evaluator that returns the test accuracy and how it was come by.

    It returns {"accuracy": on the test split, "val_accuracy": of the choice, both in
    [0, 1], "learning_rate": chosen, "weight_decay": chosen}.

    Args:
      **options: see `Options`.

    Raises:
      UserError: the options do not fit the data; when called: all fits diverged.
    """
    settings, task, groups, _ = _open(options)
    fit = {"num_classes": task.num_classes, "epochs": settings.epochs}
    fit |= {"batch_size": settings.batch_size, "seed": settings.seed}

    def evaluate(extractor: Extractor, step: int) -> dict[str, float]:
        train, test = task.extract(extractor)
        held_out = hold_out(groups, settings.validation, settings.seed)
        choice = choose(
            train,
            task.train_labels,
            held_out,
            settings.learning_rates,
            settings.weight_decays,
            **fit,
        )
        rate, decay = choice.learning_rate, choice.weight_decay
        probe = fit_probes(train, task.train_labels, [rate], [decay], **fit)
        accuracy, _ = score(probe, test, task.test_labels)
        return {
            "accuracy": float(accuracy[0]),
            "val_accuracy": choice.val_accuracy,
            "learning_rate": rate,
            "weight_decay": decay,
        }

    return evaluate


def describe(**options: Any) -> str:
    """The protocol in one line."""
    settings, task, _, unit = _open(options)
    grid = f"{len(settings.learning_rates)}x{len(settings.weight_decays)}"
    return (
        f"linear probe, SGD {settings.epochs} epochs batch {settings.batch_size}, "
        f"{grid} learning rates x weight decays chosen on {settings.validation:.0%} of "
        f"the training {unit} (seed {settings.seed}), {task.text}"
    )


def _open(options: dict[str, Any]) -> tuple[Options, Task, np.ndarray, str]:
    """Settings, task, the unit that each row belongs to, and what a unit is called."""
    settings = cli.read_options(Options, options)
    if not 0 < settings.validation < 1:
        raise UserError(
            f"validation must be between 0 and 1, not {settings.validation:g}: try 0.2."
        )
    if min(settings.epochs, settings.batch_size) < 1:
        raise UserError("epochs and batch_size must be at least 1.")
    if min(settings.learning_rates) <= 0 or min(settings.weight_decays) < 0:
        raise UserError("Learning rates must be above 0, weight decays not below 0.")
    task = open_task(
        settings.dataset,
        settings.train_split,
        settings.test_split,
        settings.target,
        image_size=settings.image_size,
        resize=settings.resize,
        max_skipped=settings.max_skipped,
        data_dir=settings.data_dir,
    )
    # Near-duplicates (variants of one concept) on both sides of the choice would
    # favour the probe that memorises.
    if "group" in task.train.attributes:
        groups, unit = task.train.attributes["group"][task.train_rows], "groups"
    else:
        groups, unit = np.arange(len(task.train_rows)), "images"
    if len(np.unique(groups)) < 2:
        raise UserError(
            f"{settings.dataset} {settings.train_split} has a single group of images, "
            "so none can be held out to choose by: use a larger training split."
        )
    return settings, task, groups, unit


def hold_out(groups: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Choose whole groups at random for validation.

    Args:
      groups: int [n], the group of each row; at least two different ones.
      fraction: part of the groups to hold out; at least one is, and one is not.
      seed: of the draw.

    Returns:
      bool [n], true for a row that is held out.
    """
    units = np.unique(groups)
    count = min(max(round(fraction * len(units)), 1), len(units) - 1)
    chosen = np.random.default_rng(seed).permutation(units)[:count]
    return np.isin(groups, chosen)


def choose(
    features: np.ndarray,
    labels: np.ndarray,
    held_out: np.ndarray,
    learning_rates: tuple[float, ...],
    weight_decays: tuple[float, ...],
    **fit: Any,
) -> Choice:
    """Fit every combination on the rows not held out; choose on those held out.

    Best is the highest accuracy, then the lowest cross-entropy.

    Args:
      features: float32 [n, D] of the training split.
      labels: int32 [n].
      held_out: bool [n], the validation rows.
      learning_rates: L of them.
      weight_decays: W of them.
      **fit: num_classes, epochs, batch_size and seed of `fit_probes`.

    Raises:
      UserError: every fit diverged.
    """
    points = list(itertools.product(learning_rates, weight_decays))
    rates, decays = zip(*points, strict=True)
    probes = fit_probes(features[~held_out], labels[~held_out], rates, decays, **fit)
    accuracy, loss = score(probes, features[held_out], labels[held_out])
    accuracy = np.where(np.isfinite(loss), accuracy, -1.0)
    if accuracy.max() < 0:
        raise UserError(
            "The linear probe diverged at every learning rate: "
            "give it lower learning_rates."
        )
    best = int(np.lexsort((loss, -accuracy))[0])
    shape = (len(learning_rates), len(weight_decays))
    return Choice(*points[best], float(accuracy[best]), accuracy.reshape(shape))


def fit_probes(
    features: np.ndarray,
    labels: np.ndarray,
    learning_rates: Any,
    weight_decays: Any,
    *,
    num_classes: int,
    epochs: int = 100,
    batch_size: int = 256,
    seed: int = 0,
) -> Probes:
    """Fit G probes at once, the g-th with learning_rates[g] and weight_decays[g].

    Args:
      features: float [n, D].
      labels: int [n] in [0, num_classes).
      learning_rates: float [G], peaks of the cosine schedule.
      weight_decays: float [G], L2 penalties on the kernels (not on the biases).
      num_classes: C.
      epochs: passes over the rows; the remainder of a pass, which fills no batch, is
        dropped, and every pass has a new order.
      batch_size: rows a step, at most n of them.
      seed: of the order.
    """
    mean, scale = moments(features)
    with jax.transfer_guard("allow"):
        kernel, bias = _fit(
            jax.device_put(standardize(features, mean, scale)),
            jax.device_put(np.asarray(labels, np.int32)),
            np.asarray(learning_rates, np.float32),
            np.asarray(weight_decays, np.float32),
            jax.random.key(seed),
            num_classes=num_classes,
            epochs=epochs,
            batch_size=min(batch_size, len(features)),
        )
    return Probes(mean, scale, kernel, bias)


def score(
    probes: Probes, features: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and mean cross-entropy of each probe.

    Args:
      probes: G of them.
      features: float [m, D], not yet standardised.
      labels: int [m]; -1 counts as wrong (the cross-entropy is then meaningless).

    Returns:
      float64 [G], in [0, 1]; and float64 [G].
    """
    labels = np.asarray(labels, np.int32)
    rows_a_call = min(1024, max(1, _BUDGET // probes.bias.size))

    def block(rows: np.ndarray) -> tuple[jax.Array, jax.Array]:
        x = standardize(features[rows], probes.mean, probes.scale)
        return _score(probes.kernel, probes.bias, x, labels[rows])

    correct, loss = map_rows(block, len(features), rows_a_call)
    return correct.mean(0, dtype=np.float64), loss.mean(0, dtype=np.float64)


@functools.partial(jax.jit, static_argnames=("num_classes", "epochs", "batch_size"))
def _fit(
    x: jax.Array,
    labels: jax.Array,
    learning_rates: jax.Array,
    weight_decays: jax.Array,
    key: jax.Array,
    *,
    num_classes: int,
    epochs: int,
    batch_size: int,
) -> tuple[jax.Array, jax.Array]:
    """Kernels [G, D, C] and biases [G, C]; x [n, D] is standardised."""
    count, width = x.shape
    steps = count // batch_size

    def fit(learning_rate: jax.Array, weight_decay: jax.Array) -> tuple[Any, Any]:
        schedule = optax.cosine_decay_schedule(1.0, steps * epochs)
        optimizer = optax.sgd(
            lambda step: learning_rate * schedule(step), momentum=0.9, nesterov=True
        )

        def loss_fn(weights: Any, x: jax.Array, target: jax.Array) -> jax.Array:
            kernel, bias = weights
            # One-hot targets: the gradient of an indexed loss is a scatter, slow.
            loss = optax.softmax_cross_entropy(_logits(kernel, bias, x), target)
            return loss.mean() + 0.5 * weight_decay * jnp.sum(kernel**2)

        def step(carry: Any, rows: jax.Array) -> tuple[Any, None]:
            weights, state = carry
            target = jax.nn.one_hot(labels[rows], num_classes)
            gradient = jax.grad(loss_fn)(weights, x[rows], target)
            updates, state = optimizer.update(gradient, state, weights)
            return (optax.apply_updates(weights, updates), state), None

        def epoch(carry: Any, number: jax.Array) -> tuple[Any, None]:
            # One order for all probes: a batch is gathered once, and the vmapped
            # products become one large matrix product.
            order = jax.random.permutation(jax.random.fold_in(key, number), count)
            rows = order[: steps * batch_size].reshape(steps, batch_size)
            return jax.lax.scan(step, carry, rows)[0], None

        weights = jnp.zeros((width, num_classes)), jnp.zeros(num_classes)
        carry = weights, optimizer.init(weights)
        return jax.lax.scan(epoch, carry, jnp.arange(epochs))[0][0]

    return jax.vmap(fit)(learning_rates, weight_decays)


@jax.jit
def _score(
    kernel: jax.Array, bias: jax.Array, x: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Whether right [B, G] and cross-entropy [B, G] of rows x [B, D]."""
    logits = jax.vmap(_logits, in_axes=(0, 0, None), out_axes=1)(kernel, bias, x)
    correct = jnp.argmax(logits, axis=-1) == labels[:, None]
    target = jax.nn.one_hot(labels, bias.shape[1])[:, None]
    return correct, optax.softmax_cross_entropy(logits, target)


def _logits(kernel: jax.Array, bias: jax.Array, x: jax.Array) -> jax.Array:
    # Full precision, so that a GPU (TF32 by default) and a CPU agree.
    return jnp.dot(x, kernel, precision=jax.lax.Precision.HIGHEST) + bias


if __name__ == "__main__":
    cli.main("linear_probe", sys.modules[__name__])
