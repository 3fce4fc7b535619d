r"""Weighted k-nearest-neighbour classification of frozen features.

Caron et al., Emerging Properties in Self-Supervised Vision Transformers (DINO),
https://arxiv.org/abs/2104.14294, after Wu et al., https://arxiv.org/abs/1805.01978:
each of the k training images nearest by cosine votes for its class with the weight
exp(similarity / temperature).

  python -m eval.knn --checkpoint=RUN --dataset=emoji --train_split=probe_train \
    --test_split=probe_test --target=subcategory
"""

import dataclasses
import itertools
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from eval import cli
from eval.evaluator import Evaluator
from eval.options import Count, Positive, read_options, shown
from eval.task import TaskOptions, open_task
from sp_jax.features import Extractor
from sp_jax.neighbours import fit_k, nearest
from sp_jax.tokens import check_tokens, describe_tokens

# Votes of one block of queries, in elements (128 MiB of float64).
_BUDGET = 2**24


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(TaskOptions):
    """The options, for a config or the command line.

    Attributes:
      tokens: of a ViT: "cls", "cls4" or "mean" (`sp_jax.tokens`).
      k: numbers of neighbours that vote, each for itself.
      temperature: of the votes' weights.
    """

    tokens: str = "cls"
    k: tuple[Count, ...] = (10, 20, 100, 200)
    temperature: Positive = 0.07


def create(**options: Any) -> Evaluator:
    """An evaluator that returns the top-1 accuracies on the test split, in [0, 1].

    It returns {"accuracy_kN": with N neighbours, for each of k, "accuracy": that of k=20,
    or of the first k where 20 is not among them}. k may be one number; of the default,
    numbers above that of the training images are left out.

    Raises:
      UserError: when called: there are no such tokens.
    """
    if "k" in options and not isinstance(options["k"], tuple | list):
        options["k"] = (options["k"],)
    settings = read_options(Options, options)
    check_tokens(settings.tokens)
    task = open_task(settings)
    images = len(task.train_rows)
    numbers, left_out = fit_k(settings.k, Options.k, images, "training images")
    main = 20 if 20 in numbers else numbers[0]

    def evaluate(extractor: Extractor, step: int) -> dict[str, float]:
        train, test = task.extract(extractor.of_tokens(settings.tokens))
        own = {"temperature": settings.temperature, "num_classes": task.num_classes}
        predicted = predict(train, task.train_labels, test, k=numbers, **own)
        result = {
            f"accuracy_k{k}": float(np.mean(classes == task.test_labels))
            for k, classes in predicted.items()
        }
        return {"accuracy": result[f"accuracy_k{main}"], **result}

    several = ",".join(map(str, numbers)) + left_out
    if len(numbers) > 1:
        several += f", accuracy is that of k={main},"
    protocol = (
        f"kNN k={several} T={shown(settings.temperature)} cosine"
        f"{describe_tokens(settings.tokens)}, {task.text}"
    )
    # Each by its k: `accuracy` is of another one where there are few images.
    ordered = sorted(numbers, key=lambda k: k != main)
    headline = task.accuracies(*(f"accuracy_k{k}" for k in ordered))
    return Evaluator(protocol, evaluate, headline, task.stores)


def predict(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    *,
    k: Sequence[int],
    temperature: float,
    num_classes: int,
) -> dict[int, np.ndarray]:
    """Class of each test image by the votes of its nearest training images.

    Features float [n, D] and [m, D] may have any length: the cosine is taken. Training labels
    are int [n] in [0, num_classes), each k at most n; a vote weighs exp(cosine / temperature).

    Returns:
      For each k int64 [m]; of classes with equal votes the one with the lower number.
    """
    rows, cosines = nearest(test_features, train_features, max(k))
    voted = np.asarray(train_labels)[rows]
    # Only the ratio of the votes counts; the largest one is set to 1 lest exp overflow.
    weight = np.exp((cosines - cosines[:, :1]).astype(np.float64) / temperature)
    found: dict[int, list[np.ndarray]] = {number: [] for number in k}
    height = max(1, _BUDGET // num_classes)
    for start in range(0, len(rows), height):
        part = slice(start, start + height)
        count = len(rows[part])
        cell = np.arange(count)[:, None] * num_classes + voted[part]
        votes = np.zeros(count * num_classes)
        # Votes of more neighbours are added to those of fewer.
        for first, last in itertools.pairwise((0, *sorted(found))):
            new = cell[:, first:last].ravel(), weight[part, first:last].ravel()
            votes += np.bincount(*new, len(votes))
            found[last].append(votes.reshape(count, num_classes).argmax(axis=1))
    return {number: np.concatenate(parts) for number, parts in found.items()}


if __name__ == "__main__":
    cli.main("knn", sys.modules[__name__])
