r"""Classification of frozen features from few labels: 1 %, 10 %, or some images per class.

From every class of the training split the same number of images is drawn, or all of it
where it has fewer, once for each seed; 1 % and 10 % are meant as in SimCLR
(https://arxiv.org/abs/2002.05709, section 4), of the whole training split. On them a ridge
classifier is fitted in closed form:

    mean |x W + b - y|^2 + weight_decay |W|^2,    y one-hot, class = argmax of x W + b

x is standardised with the mean and standard deviation of the images drawn. So few images
leave none to choose by; the weight decay is chosen by leaving out each image in turn, which for
ridge regression is exact without fitting again. The test split is scored once a draw.

  python -m eval.few_labels --checkpoint=RUN --dataset=emoji --train_split=probe_train \
    --test_split=probe_test --target=subcategory --amounts=1%,10%,5
"""

import dataclasses
import sys
from typing import Any

import numpy as np

from eval import cli
from eval.evaluator import Evaluator
from eval.options import Positive, Seed, changed, read_options
from eval.probes import Probes, moments, score, standardize
from eval.task import TaskOptions, open_task
from sp_jax import progress
from sp_jax.errors import UserError
from sp_jax.features import Extractor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(TaskOptions):
    """The options, for a config or the command line.

    Attributes:
      amounts: how many to draw: "1%" of the training images, or "5" images per class.
      weight_decays: the L2 penalties to choose from.
      seeds: one draw each.
    """

    amounts: tuple[str, ...] = ("1%", "10%", "5")
    weight_decays: tuple[Positive, ...] = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)
    seeds: tuple[Seed, ...] = (0, 1, 2, 3, 4)


def create(**options: Any) -> Evaluator:
    """An evaluator that returns the mean and the spread over draws of the test accuracy.

    It returns {"accuracy_1pct": mean in [0, 1], "std_1pct": sample standard deviation} and
    likewise for each amount ("accuracy_5_a_class" of "5"), and "accuracy", that of the
    first amount. With one seed there is no "std".
    """
    settings = read_options(Options, options)
    if len(set(settings.seeds)) < len(settings.seeds):
        raise UserError("seeds must be different numbers.")
    task = open_task(settings)
    share = len(task.train_labels) / task.num_classes
    numbers = [_a_class(amount, share) for amount in settings.amounts]
    percent = [amount.replace("%", "pct") for amount in settings.amounts]
    names = [name if "pct" in name else f"{name}_a_class" for name in percent]

    def evaluate(extractor: Extractor, step: int) -> dict[str, float]:
        train, test = task.extract(extractor)
        result = {}
        for name, number in zip(names, numbers, strict=True):
            accuracy = []
            for seed in progress.track(
                settings.seeds, f"ridge classifier, {name}", "draws"
            ):
                rows = draw(task.train_labels, number, seed)
                data, classes = (train[rows], task.train_labels[rows]), task.num_classes
                classifier, _ = fit(*data, settings.weight_decays, num_classes=classes)
                accuracy.append(score(classifier, test, task.test_labels)[0][0])
            result[f"accuracy_{name}"] = float(np.mean(accuracy))
            if len(accuracy) > 1:
                result[f"std_{name}"] = float(np.std(accuracy, ddof=1))
        return {"accuracy": result[f"accuracy_{names[0]}"], **result}

    sizes = np.bincount(task.train_labels)
    amounts = [
        f"{amount} = {np.minimum(sizes, number).sum():,} (up to {number:,} a class)"
        for amount, number in zip(settings.amounts, numbers, strict=True)
    ]
    seeds = ",".join(map(str, settings.seeds))
    own = changed(settings, "weight_decays")
    protocol = (
        f"few labels, ridge classifier, {len(settings.weight_decays)} weight decays "
        f"chosen by leaving one out, of the training images {', '.join(amounts)}, "
        f"seeds {seeds}{own}, {task.text}"
    )
    headline = task.accuracies(*(f"accuracy_{name}" for name in names))
    return Evaluator(protocol, evaluate, headline, task.stores)


def _a_class(amount: str, share: float) -> int:
    """The number of images per class; share is the average number of images in a class."""
    text = amount.removesuffix("%")
    try:
        if text == amount and int(amount) > 0:
            return int(amount)
        if text != amount and 0 < float(text) <= 100:
            return max(1, round(share * float(text) / 100))
    except ValueError:
        pass
    raise UserError(
        f"amounts has {amount!r}: give a percentage such as 1%, or a number of images per "
        "class such as 5."
    )


def draw(labels: np.ndarray, number: int, seed: int) -> np.ndarray:
    """Rows of `number` images of each class, or of all if it has fewer: int64, rising.

    With one seed a smaller draw is part of a larger one.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    sizes = np.bincount(labels)
    place = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(by_class[place < number])


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    weight_decays: tuple[float, ...],
    *,
    num_classes: int,
) -> tuple[Probes, float]:
    """Fit with each weight decay above 0, and choose by leave-one-out accuracy.

    Of equal accuracies the lower squared error decides: with one image a class nothing
    left out can be right. Features are float [n, D], n at least 2, labels int [n] in
    [0, num_classes).

    Returns:
      The classifier, and the weight decay that was chosen.
    """
    mean, scale = moments(features)
    # float64 and NumPy: a small problem, and ill-conditioned at the small weight decays.
    x = standardize(features, mean, scale).astype(np.float64)
    target = np.eye(num_classes)[labels]
    bias = target.mean(axis=0)
    u, values = _components(x - x.mean(axis=0))
    inside = u.T @ (target - bias)
    scores = []
    for decay in weight_decays:
        shrink = values / (values + len(x) * decay)
        fitted = bias + u @ (shrink[:, None] * inside)
        leverage = 1 / len(x) + u**2 @ shrink
        error = (target - fitted) / (1 - leverage)[:, None]
        correct = np.argmax(target - error, axis=1) == labels
        scores.append((-correct.mean(), np.mean(error**2)))
    chosen = weight_decays[min(range(len(scores)), key=scores.__getitem__)]
    kernel = x.T @ (u @ (inside / (values + len(x) * chosen)[:, None]))
    bias = bias - x.mean(axis=0) @ kernel
    kernel, bias = kernel.astype(np.float32), bias.astype(np.float32)
    return Probes(mean, scale, kernel[None], bias[None]), chosen


def _components(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left singular vectors [n, r] of x [n, D] and the squares of its singular values."""
    # By the smaller Gram matrix: an SVD of x itself takes several times as long.
    wide = x.shape[0] <= x.shape[1]
    values, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    kept = values > 1e-12 * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    return (vectors if wide else x @ vectors / np.sqrt(values)), values


if __name__ == "__main__":
    cli.main("few_labels", sys.modules[__name__])
