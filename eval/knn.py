r"""Weighted k-nearest-neighbour classification of frozen features.

Caron et al., Emerging Properties in Self-Supervised Vision Transformers (DINO),
https://arxiv.org/abs/2104.14294, after Wu et al., https://arxiv.org/abs/1805.01978:
each of the k training images nearest by cosine votes for its class with the weight
exp(similarity / temperature).

  python -m eval.knn --checkpoint=RUN --dataset=emoji --train_split=probe_train \
    --test_split=probe_test --target=subcategory
"""

import functools
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eval import cli
from eval.features import Evaluator, Extractor, Task, map_rows, normalize, open_task
from input_pipeline.errors import UserError

# Largest intermediate array of one call, in elements (256 MiB of float32).
_BUDGET = 2**26


class Options(NamedTuple):
    """What a config or the command line may set.

    Attributes:
      dataset: name of an image store.
      train_split: images that vote.
      test_split: images to classify.
      target: "label" or an attribute of the store.
      k: number of neighbours that vote.
      temperature: of the votes' weights.
      image_size: side of the stored images in pixels; that of the run.
      resize: how they were made square, "crop" or "squash"; that of the run.
      max_skipped: share of the images that may be damaged and left out.
      data_dir: where prepared images are kept.
    """

    dataset: str
    train_split: str
    test_split: str
    target: str = "label"
    k: int = 20
    temperature: float = 0.07
    image_size: int = 64
    resize: str = "crop"
    max_skipped: float = 0.01
    data_dir: str | None = None


def create(**options: Any) -> Evaluator:
    """An evaluator that returns {"accuracy": top-1 on the test split, in [0, 1]}.

    Args:
      **options: see `Options`.

    Raises:
      UserError: the options do not fit the data.
    """
    settings, task = _open(options)

    def evaluate(extractor: Extractor, step: int) -> dict[str, float]:
        train, test = task.extract(extractor)
        predicted = predict(
            train,
            task.train_labels,
            test,
            k=settings.k,
            temperature=settings.temperature,
            num_classes=task.num_classes,
        )
        return {"accuracy": float(np.mean(predicted == task.test_labels))}

    return evaluate


def describe(**options: Any) -> str:
    """The protocol in one line."""
    settings, task = _open(options)
    return f"kNN k={settings.k} T={settings.temperature:g} cosine, {task.text}"


def _open(options: dict[str, Any]) -> tuple[Options, Task]:
    settings = cli.read_options(Options, options)
    if settings.temperature <= 0:
        raise UserError(
            f"temperature must be positive, not {settings.temperature:g}: try 0.07."
        )
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
    if not 1 <= settings.k <= len(task.train_rows):
        raise UserError(
            f"k={settings.k} neighbours of {len(task.train_rows):,} training images: "
            "choose k between 1 and their number."
        )
    return settings, task


def predict(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    *,
    k: int,
    temperature: float,
    num_classes: int,
) -> np.ndarray:
    """Class of each test image by the votes of its nearest training images.

    Args:
      train_features: float [n, D], of any length: the cosine is taken.
      train_labels: int [n] in [0, num_classes).
      test_features: float [m, D].
      k: number of neighbours, at most n.
      temperature: weight of a vote is exp(cosine / temperature).
      num_classes: number of classes.

    Returns:
      int32 [m]; of classes with equal votes the one with the lower number.
    """
    bank = jax.device_put(normalize(train_features))
    labels = jax.device_put(np.asarray(train_labels, np.int32))
    queries = normalize(test_features)
    widest = max(len(bank), k * num_classes)
    return map_rows(
        lambda rows: _vote(
            bank, labels, queries[rows], np.float32(temperature), k, num_classes
        ),
        len(queries),
        min(256, max(1, _BUDGET // widest)),
    )


@functools.partial(jax.jit, static_argnames=("k", "num_classes"))
def _vote(
    bank: jax.Array,
    labels: jax.Array,
    queries: jax.Array,
    temperature: jax.Array,
    k: int,
    num_classes: int,
) -> jax.Array:
    # Full precision: with TF32's error of 1e-3 votes would be off by some per cent.
    similarity = jnp.dot(queries, bank.T, precision=jax.lax.Precision.HIGHEST)
    nearest, rows = jax.lax.top_k(similarity, k)
    # Only the ratio of the votes counts; the largest one is set to 1 lest exp overflow.
    # (Not nearest[:, :1]: with a slice of it XLA:CPU sorts whole rows, 15-50 x slower.)
    largest = nearest.max(axis=1, keepdims=True)
    weight = jnp.exp((nearest - largest) / temperature)
    voted = jax.nn.one_hot(labels[rows], num_classes)
    votes = jnp.einsum("qk,qkc->qc", weight, voted, precision="highest")
    return jnp.argmax(votes, axis=1).astype(jnp.int32)


if __name__ == "__main__":
    cli.main("knn", sys.modules[__name__])
