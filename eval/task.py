"""Labelled images to evaluate features on, and the options that choose them."""

import dataclasses
from typing import Annotated, NamedTuple

import numpy as np

from eval.evaluator import Number
from eval.options import Count, Fraction, shown
from input_pipeline.stores import ImageStore, open_store
from input_pipeline.stores import images_as as images_as
from sp_jax import domains
from sp_jax.errors import UserError
from sp_jax.features import Extractor


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoreOptions:
    """Options of every evaluator, for a config or the command line.

    Attributes:
      dataset: name of an image store.
      image_size: side of the stored images in pixels; by default the run's.
      resize: how images become square, "crop" or "squash"; by default the run's.
      max_skipped: largest share of the images that may be damaged and left out.
      data_dir: folder of prepared images.
    """

    dataset: str
    image_size: Count = 64
    resize: str = "crop"
    max_skipped: Fraction = 0.01
    data_dir: str | None = None

    def open(self, split: str) -> ImageStore:
        """A split of the dataset; UserError if there is no such store or split."""
        names = ("image_size", "resize", "max_skipped", "data_dir")
        prepared = {name: getattr(self, name) for name in names}
        return open_store(self.dataset, split, **prepared)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskOptions(StoreOptions):
    """More options, of evaluators that fit on labelled images.

    Attributes:
      train_split: images to fit on; the default is train.
      test_split: images to report on; the default is test.
      holdout: share of each class to report on, chosen by the images' names; 0: none.
      target: "label" or an attribute of the store.
    """

    train_split: str | None = None
    test_split: str | None = None
    holdout: Annotated[float, domains.BELOW_ONE] = 0.0
    target: str = "label"

    def splits(self) -> tuple[str, str]:
        """The splits to fit on and to report on.

        Raises:
          UserError: they are not given, and the store has none, or `holdout` excludes them.
        """
        if self.holdout:
            if self.test_split is not None:
                raise UserError(
                    f"holdout={self.holdout:g} chooses the test images: leave test_split out."
                )
            share = shown(self.holdout)
            whole = self.train_split or "all"
            return f"{whole}:rest={share}", f"{whole}:holdout={share}"
        told = None not in (self.train_split, self.test_split)
        if not told and not (whole := self.open("all")).splits:
            _labelled(whole, self.target)
            raise UserError(
                f"{self.dataset} has no splits: hold out a tenth of each class for the test "
                "with holdout=0.1 (--holdout=0.1)."
            )
        return self.train_split or "train", self.test_split or "test"


class Task(NamedTuple):
    """A classification task: which rows to fit on, which to test on."""

    train: ImageStore  # the store to fit on
    test: ImageStore  # the store to test on
    train_rows: np.ndarray  # int64 [n], the labelled rows of `train`
    test_rows: np.ndarray  # int64 [m], the labelled rows of `test`
    # int32 [n] in [0, num_classes): only classes with a training image.
    train_labels: np.ndarray
    # int32 [m]; -1, always wrong, where `train` has no image of the class.
    test_labels: np.ndarray
    num_classes: int  # number of classes with a training image
    text: str  # all of this in words, for the protocol

    @property
    def groups(self) -> np.ndarray:
        """The groups of training images that are held out together, int [n].

        Near-duplicates (variants of one concept) on both sides of a choice would favour
        memorising. In stores without an attribute "group" each image is a group.
        """
        if "group" in self.train.attributes:
            return self.train.attributes["group"][self.train_rows]
        return np.arange(len(self.train_rows))

    @property
    def stores(self) -> tuple[ImageStore, ImageStore]:
        """Both stores."""
        return self.train, self.test

    def chance(self, rows: np.ndarray | slice = slice(None)) -> float:
        """The accuracy of the most frequent training class on some of `test_rows`."""
        common = np.bincount(self.train_labels).argmax()
        return float(np.mean(self.test_labels[rows] == common))

    def accuracies(self, *names: str) -> tuple[Number, ...]:
        """Numbers of a result that are accuracies on the test images."""
        chance = self.chance()
        return tuple(Number(name, percent=True, chance=chance) for name in names)

    def extract(self, extractor: Extractor) -> tuple[np.ndarray, np.ndarray]:
        """Features of the training and test rows: float32 [n, D] and [m, D]."""
        train = extractor.extract(self.train)[self.train_rows]
        return train, extractor.extract(self.test)[self.test_rows]


def open_task(settings: TaskOptions) -> Task:
    """Open the two splits of a labelled store and match their classes.

    Raises:
      UserError: no such store, split or target; the splits share images; or there is
        nothing to learn (no labelled image, one class, no class in both splits).
    """
    dataset, target = settings.dataset, settings.target
    train_split, test_split = settings.splits()
    train, test = settings.open(train_split), settings.open(test_split)
    if shared := set(train.ids) & set(test.ids):
        raise UserError(
            f"{dataset} {train_split} and {test_split} share {len(shared):,} images "
            f"(e.g. {min(shared)}): test on a split without training images."
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
        text += f", {absent} of them of classes not in {train_split}, counted as wrong"
    labels = train_labels.astype(np.int32), test_labels.astype(np.int32)
    return Task(train, test, train_rows, test_rows, *labels, len(classes), text)


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
