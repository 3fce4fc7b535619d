"""Frozen features, and the labelled images on which they are judged."""

import functools
import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from eval.tokens import of_tokens
from input_pipeline.store import ImageStore, open_store
from sp_jax.errors import UserError

FeaturesFn = Callable[[np.ndarray], Any]


def map_rows(fn: Callable[[np.ndarray], Any], count: int, batch_size: int) -> Any:
    """Call a function on blocks of row numbers of one size; join what it returns.

    The last block is filled up with its last row, so a jitted function compiles once;
    the filling is cut off again. A block is fetched while the next one is computed.

    Args:
      fn: int64 [batch_size] row numbers -> array(s) with leading axis batch_size.
      count: number of rows, at least 1.
      batch_size: rows a call.

    Returns:
      NumPy array(s) with leading axis count.
    """
    blocks, waiting = [], None
    # A training loop may forbid implicit transfers; here they are meant.
    with jax.transfer_guard("allow"):
        for start in range(0, count, batch_size):
            rows = np.minimum(np.arange(start, start + batch_size), count - 1)
            started = fn(rows)
            if waiting is not None:
                blocks.append(jax.device_get(waiting))
            waiting = started
        blocks.append(jax.device_get(waiting))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *blocks)


class Extractor:
    """Features of whole image stores, each store run through the backbone once.

    Make a new one whenever the backbone's parameters have changed.

    Attributes:
      backbone: uint8 [batch_size, S, S, 3] -> float [batch_size, D], the frozen network
        in evaluation mode: a `sp_jax.backbone.Backbone`, or any such function.
      batch_size: images a call; the last call is filled up to it.
    """

    def __init__(self, backbone: FeaturesFn, batch_size: int = 256) -> None:
        """See the class."""
        self.backbone = backbone
        self.batch_size = batch_size
        self._memo: dict[str, np.ndarray] = {}
        self._others: dict[str, Extractor] = {}

    @functools.cached_property
    def fingerprint(self) -> str | None:
        """`Backbone.identity`; None of a mere function of images, which tells nothing.

        With a state that is split over processes, all of them have to ask.
        """
        identity = getattr(self.backbone, "identity", None)
        return identity() if identity else None

    def of_tokens(self, tokens: str) -> "Extractor":
        """The extractor of other features of a vision transformer, see `eval.tokens`.

        Args:
          tokens: "cls", which gives this one, "cls4" or "mean".

        Raises:
          UserError: the backbone has no such tokens.
        """
        if tokens == "cls":
            return self
        if tokens not in self._others:
            backbone = of_tokens(self.backbone, tokens)
            self._others[tokens] = Extractor(backbone, self.batch_size)
        return self._others[tokens]

    def extract(self, store: ImageStore) -> np.ndarray:
        """Features of every image of a store.

        Returns:
          float32 [len(store), D], read-only because evaluators share it.

        Raises:
          ValueError: the backbone returns another shape than [batch_size, D].
          UserError: a feature is NaN or infinite.
        """
        if store.fingerprint not in self._memo:
            name = f"{store.name} {store.split}"
            features = self._map(store.read, len(store), name)
            features.flags.writeable = False
            self._memo[store.fingerprint] = features
        return self._memo[store.fingerprint]

    def map(self, images: np.ndarray) -> np.ndarray:
        """Features of images that are in no store, and are not remembered.

        Args:
          images: uint8 [n, S, S, 3], any n from 1.

        Returns:
          float32 [n, D].

        Raises:
          ValueError: the backbone returns another shape than [batch_size, D].
          UserError: a feature is NaN or infinite.
        """
        return self._map(lambda rows: images[rows], len(images), "these images")

    def _map(
        self, read: Callable[[np.ndarray], np.ndarray], count: int, name: str
    ) -> np.ndarray:
        features = map_rows(lambda rows: self._call(read(rows)), count, self.batch_size)
        features = np.array(features, np.float32)
        if not np.isfinite(features).all():
            raise UserError(
                f"The backbone gives NaN or infinite features on {name}: evaluate an "
                "earlier checkpoint, or train with a lower learning rate."
            )
        return features

    def _call(self, images: np.ndarray) -> Any:
        features = self.backbone(images)
        if features.ndim != 2 or len(features) != len(images):
            raise ValueError(
                f"A backbone must return [{len(images)}, D] for {len(images)} images, "
                f"not {list(features.shape)}."
            )
        return features


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


def normalize(features: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, float32 [N, D]; rows of zeros stay zero."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return (features / np.maximum(length, 1e-12)).astype(np.float32)


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
