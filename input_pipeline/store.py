"""Image stores: pixels with labels, opened by name and read by whole batches."""

import dataclasses
import hashlib
import os

import numpy as np

from input_pipeline import cache
from input_pipeline.errors import UserError

KNOWN = ("emoji", "folder:DIR")


@dataclasses.dataclass(frozen=True, eq=False)
class ImageStore:
    """Images of one size with labels; pixels are read, never decoded.

    Attributes:
      name: as given to `open_store`, e.g. "emoji".
      split: e.g. "pretrain"; "all" for everything.
      images: uint8 [N, S, S, 3], memory-mapped where the split's rows are contiguous.
      labels: int32 [N], the class whose images may be paired; -1: unlabelled.
      class_names: names of the class ids. They are those of all splits, so that a
        class id means the same in every split.
      ids: one stable id an image: relative file name, or "artist/codepoint".
      attributes: further labels, int32 [N] each, e.g. category, artist.
      attribute_names: names of each attribute's values.
      fingerprint: SHA-256 hex over pixels, labels and ids of this split.
    """

    name: str
    split: str
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    ids: tuple[str, ...]
    attributes: dict[str, np.ndarray]
    attribute_names: dict[str, tuple[str, ...]]
    fingerprint: str

    def __len__(self) -> int:
        """The number of images."""
        return len(self.ids)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Pixels of the given images.

        Args:
          indices: integers in [0, len(store)), of any shape [...].

        Returns:
          A new uint8 array [..., S, S, 3].

        Raises:
          IndexError: an index is negative or too large.
        """
        indices = np.asarray(indices)
        if indices.size and indices.min() < 0:
            raise IndexError(f"Image index {indices.min()} is negative.")
        return np.asarray(self.images[indices])

    def target(self, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
        """Labels to predict: "label" or the name of an attribute.

        Returns:
          int32 [N] and the names of its values.

        Raises:
          UserError: the store has no such attribute.
        """
        if name == "label":
            return self.labels, self.class_names
        if name not in self.attributes:
            known = ", ".join(["label", *self.attributes])
            raise UserError(
                f"{self.name} has no target {name!r}: choose one of {known}."
            )
        return self.attributes[name], self.attribute_names[name]


def open_store(
    name: str,
    split: str | None = None,
    *,
    image_size: int = 64,
    data_dir: str | os.PathLike[str] | None = None,
) -> ImageStore:
    """Open an image store; decode and resize its images when it is new.

    Args:
      name: "emoji" (shipped with the project), or "folder:DIR" for class folders of
        JPEG, PNG or WebP files.
      split: one of the store's splits; None or "all" for every image.
      image_size: side in pixels of the stored images.
      data_dir: where prepared images are kept; default $SP_JAX_DATA, else
        ~/.cache/sp_jax.

    Raises:
      UserError: unknown name or split, missing folder, or a file that is no image.

    Example:
      >>> store = open_store("emoji", "pretrain")
      >>> store.read([0, 1]).shape
      (2, 64, 64, 3)
    """
    if not isinstance(image_size, int) or image_size < 1:
        raise UserError(f"image_size must be a positive integer, not {image_size!r}.")
    scheme, _, rest = name.partition(":")
    if name == "emoji":
        from input_pipeline import emoji

        prepared = emoji.prepare(image_size, data_dir)
    elif scheme == "folder" and rest:
        from input_pipeline import folder

        prepared = folder.prepare(rest, image_size, data_dir)
    else:
        raise UserError(
            f"Unknown image store {name!r}: the known ones are {', '.join(KNOWN)}."
        )
    return _select(name, split, prepared)


def _select(name: str, split: str | None, prepared: cache.Prepared) -> ImageStore:
    """The rows of one split as a store."""
    meta = prepared.meta
    if split in (None, "all"):
        split, rows = "all", np.arange(len(meta["ids"]))
    elif split in meta["splits"]:
        rows = np.asarray(meta["splits"][split], np.int64)
    else:
        known = ", ".join([*meta["splits"], "all"])
        raise UserError(f"{name} has no split {split!r}: choose one of {known}.")
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        images = prepared.images[rows[0] : rows[-1] + 1]  # A view: stays on disk.
    else:
        images = np.asarray(prepared.images[rows])
    labels = np.asarray(meta["labels"], np.int32)[rows]
    ids = tuple(meta["ids"][row] for row in rows)
    return ImageStore(
        name=name,
        split=split,
        images=images,
        labels=labels,
        class_names=tuple(meta["class_names"]),
        ids=ids,
        attributes={
            key: np.asarray(values, np.int32)[rows]
            for key, values in meta["attributes"].items()
        },
        attribute_names={
            key: tuple(names) for key, names in meta["attribute_names"].items()
        },
        fingerprint=_fingerprint(prepared.digests[rows], images.shape, labels, ids),
    )


def fingerprint(images: np.ndarray, labels: np.ndarray, ids: tuple[str, ...]) -> str:
    """SHA-256 hex over pixels, labels and ids: what `ImageStore.fingerprint` holds."""
    digests = np.stack([cache.digest_pixels(image) for image in images])
    return _fingerprint(digests, images.shape, labels, ids)


def _fingerprint(
    digests: np.ndarray,
    shape: tuple[int, ...],
    labels: np.ndarray,
    ids: tuple[str, ...],
) -> str:
    whole = hashlib.sha256(repr(tuple(int(n) for n in shape)).encode())
    whole.update(np.ascontiguousarray(digests).tobytes())
    whole.update(np.asarray(labels, "<i4").tobytes())
    whole.update("\0".join(ids).encode("utf-8", "surrogateescape"))
    return whole.hexdigest()
