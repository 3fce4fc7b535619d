"""Labelled images on which features are judged, and a measurement that is ready."""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.stores import ImageStore, open_store
from sp_jax.errors import UserError
from sp_jax.features import Extractor


class Evaluator(NamedTuple):
    """A measurement that is ready; call it with an `Extractor` and the training step.

    Attributes:
      measure: (extractor, step) -> name -> number.
      protocol: how, in one line to print beside the numbers.
      stores: the images that it reads.
    """

    measure: Callable[[Extractor, int], dict[str, float]]
    protocol: str
    stores: tuple[ImageStore, ...]

    def __call__(self, extractor: Extractor, step: int) -> dict[str, float]:
        """The numbers of a network.

        Raises:
          UserError: the network does not fit the options.
        """
        return self.measure(extractor, step)

    def fingerprints(self) -> dict[str, str]:
        """Each split that is read, and SHA-256 hex over its pixels, labels and attributes."""
        return {f"{x.name} {x.split}": _fingerprint(x) for x in self.stores}


def _fingerprint(store: ImageStore) -> str:
    # That of a store is over pixels, labels and ids: tables of pairs know it as it is.
    whole = hashlib.sha256(store.fingerprint.encode())
    for name, values in sorted(store.attributes.items()):
        whole.update(f"\0{name}\0".encode())
        whole.update(np.ascontiguousarray(values, "<i4").tobytes())
    return whole.hexdigest()


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each feature, float32 [D]; deviation 1 for a constant."""
    # Sums in float64, block by block: float32 sums of 50,000 rows lose digits, and a
    # float64 copy of all rows may not fit.
    blocks = [features[start : start + 4096] for start in range(0, len(features), 4096)]
    mean = sum(b.sum(0, dtype=np.float64) for b in blocks) / len(features)
    scale = np.sqrt(sum(((b - mean) ** 2).sum(0) for b in blocks) / len(features))
    scale[scale <= 1e-6 * np.abs(mean)] = 1.0  # Rounding noise about a constant.
    return mean.astype(np.float32), scale.astype(np.float32)


def standardize(
    features: np.ndarray, mean: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """(features - mean) / scale as float32 [N, D]."""
    return ((features - mean) / scale).astype(np.float32)


class Task(NamedTuple):
    """A classification task: which rows to fit on, which to test on.

    Attributes:
      train: the store to fit on.
      test: the store to test on.
      train_rows: int64 [n], the labelled rows of `train`.
      test_rows: int64 [m], the labelled rows of `test`.
      train_labels: int32 [n] in [0, num_classes): only classes with a training image.
      test_labels: int32 [m]; -1 where `train` has no image of the class, so such an
        image always counts as wrong.
      num_classes: number of classes with a training image.
      text: all of this in words, for the protocol.
    """

    train: ImageStore
    test: ImageStore
    train_rows: np.ndarray
    test_rows: np.ndarray
    train_labels: np.ndarray
    test_labels: np.ndarray
    num_classes: int
    text: str

    @property
    def groups(self) -> np.ndarray:
        """Which training images belong together, int [n]: they are held out together.

        Near-duplicates (variants of one concept) on both sides of a choice would favour
        what memorises. Stores without an attribute "group" have a group an image.
        """
        if "group" in self.train.attributes:
            return self.train.attributes["group"][self.train_rows]
        return np.arange(len(self.train_rows))

    def extract(self, extractor: Extractor) -> tuple[np.ndarray, np.ndarray]:
        """Features of the training and test rows: float32 [n, D] and [m, D]."""
        train = extractor.extract(self.train)[self.train_rows]
        return train, extractor.extract(self.test)[self.test_rows]


def prepared(settings: Any) -> dict[str, Any]:
    """How an evaluator's `Options` say that images are prepared, for `open_store`."""
    names = ("image_size", "resize", "max_skipped", "data_dir")
    return {name: getattr(settings, name) for name in names}


def task_of(settings: Any) -> Task:
    """The task that an evaluator's `Options` name; see `open_task`."""
    return open_task(
        settings.dataset,
        settings.train_split,
        settings.test_split,
        settings.target,
        **prepared(settings),
    )


def open_task(
    dataset: str,
    train_split: str,
    test_split: str,
    target: str,
    **options: Any,
) -> Task:
    """Open the two splits of a labelled store and match their classes.

    Args:
      dataset: name of the store.
      train_split: split to fit on.
      test_split: split to test on.
      target: "label" or an attribute.
      **options: image_size and others of `open_store`.

    Raises:
      UserError: no such store, split or target; the splits share images; or there is
        nothing to learn (no labelled image, one class, no class in both splits).
    """
    train, test = (
        open_store(dataset, split, **options) for split in (train_split, test_split)
    )
    shared = set(train.ids) & set(test.ids)
    if shared:
        raise UserError(
            f"{dataset} {train_split} and {test_split} share {len(shared):,} images "
            f"(e.g. {min(shared)}): test on a split that has none of those fitted on."
        )
    train_rows, train_ids = _labelled(train, target)
    test_rows, test_ids = _labelled(test, target)
    classes, train_labels = np.unique(train_ids, return_inverse=True)
    if len(classes) < 2:
        raise UserError(
            f"All {target}s in {dataset} {train_split} are the same: "
            "choose a target or a split with at least two classes."
        )
    position = np.minimum(np.searchsorted(classes, test_ids), len(classes) - 1)
    test_labels = np.where(classes[position] == test_ids, position, -1)
    absent = int((test_labels < 0).sum())
    if absent == len(test_labels):
        known = ", ".join(["label", *train.attributes])
        raise UserError(
            f"No {target} in {dataset} {test_split} occurs in {train_split}: "
            f"choose another target ({known}) or other splits."
        )
    text = (
        f"{dataset} {target}, fit {train_split} ({len(train_rows):,} images, "
        f"{len(classes)} classes) -> test {test_split} ({len(test_rows):,})"
    )
    if absent:
        text += f", {absent} of them of classes not in {train_split}: wrong by rule"
    return Task(
        train=train,
        test=test,
        train_rows=train_rows,
        test_rows=test_rows,
        train_labels=train_labels.astype(np.int32),
        test_labels=test_labels.astype(np.int32),
        num_classes=len(classes),
        text=text,
    )


def _labelled(store: ImageStore, target: str) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a store whose target is known, and the target of each."""
    values, _ = store.target(target)
    rows = np.flatnonzero(values >= 0)
    if not len(rows):
        raise UserError(
            f"{store.name} {store.split} has no image with a {target}: "
            "choose a labelled split, or put the images into class folders."
        )
    return rows, values[rows]
