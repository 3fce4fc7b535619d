"""Image stores: pixels with labels, opened by name and read by whole batches."""

import dataclasses
import functools
import hashlib
import inspect
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline.stores import holdout, memory_map, prepared_images, records
from input_pipeline.stores.decode import RESIZES, Resize
from input_pipeline.stores.image_source import ReadAlpha, Source
from input_pipeline.stores.prepared_images import Pixels, report_skipped
from sp_jax import progress, registry
from sp_jax.errors import UserError

# Modules of this package, and how their stores are written.
_FORMS = {
    "emoji": "emoji",
    "folder": "folder:DIR",
    "images": "images:DIR",
    "tiny_imagenet": "tiny_imagenet:DIR",
    "cifar10": "cifar10:PATH",
    "cifar100": "cifar100:PATH",
    "stl10": "stl10:PATH",
    "imagenet": "imagenet:PATH",
    "webdataset": "webdataset:DIR",
    "hf": "hf:NAME",
    "tfds": "tfds:NAME",
    "array_record": "array_record:DIR",
}


class _Rows:
    """Some rows of pixels, in the given order, without a copy."""

    def __init__(self, pixels: Pixels, rows: np.ndarray):
        self._pixels, self._rows = pixels, np.asarray(rows, np.int64)
        self.shape = (len(self._rows), *pixels.shape[1:])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self._pixels[self._rows[rows]]

    def stored(self, rows: np.ndarray) -> Sequence[np.ndarray]:
        return self._pixels.stored(self._rows[rows])


@dataclasses.dataclass(frozen=True, eq=False)
class ImageStore:
    """Images of one size with labels; pixels are read, and decoded only if `coded`.

    Attributes:
      name: as given to `open_store`, e.g. "emoji".
      split: e.g. "pretrain"; "all" for everything.
      images: pixels uint8 [N, S, S, 3] on disk, to be indexed by rows.
      labels: int32 [N], the class whose images may be paired; -1: unlabelled.
      class_names: names of the class ids. They are those of all splits, so that a
        class id means the same in every split.
      ids: one stable id an image: relative file name, or "artist/codepoint".
      attributes: further labels, int32 [N] each, e.g. category, artist.
      attribute_names: names of each attribute's values.
      digests: uint8 [N, 32], SHA-256 of the pixels of each image.
      splits: names of all splits of the store, of which this may be one.
      root: see `Source`; None for ArrayRecord files.
      read_alpha: see `Source`; None for ArrayRecord files.
      coded: `images.stored` gives JPEG files of whole images; `images` are their centres.
    """

    name: str
    split: str
    images: Pixels
    labels: np.ndarray
    class_names: tuple[str, ...]
    ids: tuple[str, ...]
    attributes: dict[str, np.ndarray]
    attribute_names: dict[str, tuple[str, ...]]
    digests: np.ndarray
    splits: tuple[str, ...] = ()
    root: pathlib.Path | None = None
    read_alpha: ReadAlpha | None = None
    coded: bool = False

    def __len__(self) -> int:
        """The number of images."""
        return len(self.ids)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 hex over pixels, labels and ids of this split."""
        shape = tuple(int(n) for n in self.images.shape)
        whole = hashlib.sha256(repr(shape).encode())
        whole.update(np.ascontiguousarray(self.digests).tobytes())
        whole.update(np.asarray(self.labels, "<i4").tobytes())
        whole.update("\0".join(self.ids).encode("utf-8", "surrogateescape"))
        return whole.hexdigest()

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Pixels of some images: a new uint8 [..., S, S, 3] for indices [...] in [0, N).

        IndexError if one is negative or too large.
        """
        indices = np.asarray(indices)
        if indices.size and indices.min() < 0:
            raise IndexError(f"Image index {indices.min()} is negative.")
        return self.images[indices]

    def take(self, rows: np.ndarray) -> "ImageStore":
        """The store of some images, in the order of the rows; pixels are not copied."""
        return dataclasses.replace(
            self,
            images=_Rows(self.images, rows),
            labels=self.labels[rows],
            ids=tuple(self.ids[row] for row in rows),
            attributes={name: x[rows] for name, x in self.attributes.items()},
            digests=self.digests[rows],
        )

    def class_name(self, label: int) -> str:
        """The name of a class id; "" for -1, without a label."""
        return self.class_names[label] if label >= 0 else ""

    def target(self, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
        """Labels to predict, "label" or an attribute: int32 [N], and the names of its values.

        UserError if the store has no such attribute.
        """
        if name == "label":
            return self.labels, self.class_names
        if name not in self.attributes:
            known = ", ".join(["label", *self.attributes])
            raise UserError(
                f"{self.name} has no target {name!r}: choose one of {known}."
            )
        return self.attributes[name], self.attribute_names[name]


def images_as(data: Mapping[str, Any]) -> dict[str, Any]:
    """The options for preparing images, from the section `data` of a config."""
    return {
        "image_size": data["image_size"],
        "resize": data.get("resize", "crop"),
        "max_skipped": data.get("max_skipped", 0.01),
        "data_dir": data["dir"] or None,
    }


def open_data(data: Mapping[str, Any]) -> ImageStore:
    """Open the images that the section `data` of a config names; see `open_store`."""
    return open_store(data["store"], data["split"], **images_as(data))


def open_store(
    name: str,
    split: str | None = None,
    *,
    image_size: int = 64,
    resize: Resize = "crop",
    data_dir: str | os.PathLike[str] | None = None,
    max_skipped: float = 0.01,
    verify: bool = False,
) -> ImageStore:
    """Open an image store; decode and resize its images when it is new.

    Args:
      name: one of
        "emoji": the drawings that come with the project;
        "folder:DIR": class folders of images, or a zip archive of them;
        "images:DIR": every image below a folder, or of a list of paths, without labels;
        "tiny_imagenet:DIR", "cifar10:PATH", "cifar100:PATH", "stl10:PATH": the official
        archives, packed or unpacked;
        "imagenet:PATH": the official tar archives of ImageNet, as they are;
        "webdataset:DIR" or "webdataset:PATTERN": shards of WebDataset;
        "hf:NAME", "hf:NAME:CONFIG" or "hf:DIR": a dataset of Hugging Face;
        "tfds:NAME": a dataset of TensorFlow Datasets, such as tfds:imagenet2012;
        "array_record:DIR": what `python -m input_pipeline.prepare` wrote;
        "mypackage.mystore" or "mypackage.mystore:ARGUMENT": any other module with the
        function that `image_source` describes.
      split: one of the store's splits; None or "all" for every image. With ":holdout" or
        ":rest" added, one of its two parts, see `holdout`.
      image_size: side in pixels of the stored images; for JPEG files that of their centres.
      resize: "crop": the shorter side becomes image_size, then the centre is cropped;
        "squash": both sides become image_size.
      data_dir: where prepared images are kept; default $SP_JAX_DATA, else ~/.cache/sp_jax.
      max_skipped: largest share of the images that may be damaged, from 0 to 1. They are
        left out, and listed in the `skipped.csv` of the prepared folder.
      verify: compare the pixels of all prepared images with their SHA-256, not only those of
        a few images and of changed files.

    Raises:
      UserError: unknown name or split, missing files, or too many damaged images.

    Example:
      >>> store = open_store("emoji", "pretrain")
      >>> store.read([0, 1]).shape
      (2, 64, 64, 3)
    """
    if not isinstance(image_size, int) or image_size < 1:
        raise UserError(f"image_size must be a positive integer, not {image_size!r}.")
    if resize not in RESIZES:
        raise UserError(f"resize must be one of {', '.join(RESIZES)}, not {resize!r}.")
    if not 0 <= max_skipped <= 1:
        raise UserError(f"max_skipped must be a share from 0 to 1, not {max_skipped}.")
    scheme, _, argument = name.partition(":")
    if scheme == "array_record" and argument:
        prepared = records.load(argument, image_size, resize, verify)
        declared = {"coded": records.is_coded(prepared.meta)}
    else:
        with progress.show(f"listing {name}"):
            source = with_split(open_source(name), name, split)
        options = (image_size, resize, data_dir, max_skipped, verify)
        prepared = memory_map.load_or_prepare(source, *options)
        declared = {"root": source.root, "read_alpha": source.read_alpha}
    report_skipped(prepared, max_skipped)
    meta, names = prepared.meta, prepared.meta["attribute_names"]
    store = ImageStore(
        name=name,
        split="all",
        images=prepared.images,
        labels=np.asarray(meta["labels"], np.int32),
        class_names=tuple(meta["class_names"]),
        ids=tuple(meta["ids"]),
        attributes={k: np.asarray(x, np.int32) for k, x in meta["attributes"].items()},
        attribute_names={key: tuple(values) for key, values in names.items()},
        digests=prepared.digests,
        splits=tuple(meta["splits"]),
        **declared,
    )
    return _take_split(store, meta["splits"], split or "all")


def _take_split(
    store: ImageStore, splits: Mapping[str, list[int]], wanted: str
) -> ImageStore:
    """A split, or a part of one, of a whole store.

    Raises:
      UserError: the store has no such split, or the split is empty.
    """
    whole, part, share = holdout.read(wanted)
    if part:
        store = _take_split(store, splits, whole)
        rows = holdout.rows_of(part, share, store.labels, store.ids)
        if not len(rows):
            raise UserError(
                f"{store.name}, split {wanted!r}, has no images: no class of {whole!r} has "
                "more than two."
            )
    elif wanted == "all":
        return store
    else:
        _check_split(store.name, splits, wanted)
        rows = np.asarray(splits[wanted], np.int64)
    return dataclasses.replace(store.take(rows), split=wanted)


def _check_split(name: str, splits: Mapping[str, list[int]], wanted: str) -> None:
    """Raise UserError if the store of this name has no such split."""
    if wanted == "all":
        return
    if not splits:
        raise UserError(
            f"{name} has no split {wanted!r}, only 'all': set the split to all, as in "
            "--split=all or --config.data.split=all."
        )
    if wanted not in splits:
        known = ", ".join([*splits, "all"])
        raise UserError(f"{name} has no split {wanted!r}: choose one of {known}.")


def with_split(source: Source, name: str, split: str) -> Source:
    """A source that is refused before its images are prepared, if it lacks a split.

    Args:
      source: of the store `name`.
      name: as given to `open_store`.
      split: as given to `open_store`.
    """

    def meta() -> dict[str, Any]:
        found = source.meta()
        if prepared_images.describes(found):
            _check_split(name, found["splits"], holdout.read(split or "all")[0])
        return found

    return source._replace(meta=meta)


def find_splits(name: str, **options: Any) -> list[str]:
    """The names of a store's splits; the options are those of `open_store`."""
    return list(open_store(name, **options).splits)


def open_source(name: str) -> Source:
    """The images of a store before they are prepared.

    Raises:
      UserError: the name is unknown, the images are missing, or a module is not a store.
    """
    scheme, _, argument = name.partition(":")
    if scheme in _FORMS and bool(argument) != (":" in _FORMS[scheme]):
        raise UserError(f"There is no store {name!r}: write it as {_FORMS[scheme]}.")
    if not argument and scheme not in _FORMS and os.path.isdir(name):
        raise UserError(
            f"{name} is a folder, not a store: write folder:{name}, or images:{name} if its "
            "folders are not classes."
        )
    if scheme == "array_record":
        raise UserError(
            f"{name} is already prepared: name the store that it was made from."
        )
    # The error names the forms.
    known = list(_FORMS if scheme in _FORMS else _FORMS.values())
    module = registry.find("store", scheme, __package__, known)
    where = f"The store {name!r} ({module.__file__})"
    try:
        inspect.signature(module.scan).bind(argument)
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"{where} needs a function scan(argument: str) that returns an "
            f"image_source.Source ({error})."
        ) from error
    source = module.scan(argument)
    if not isinstance(source, Source):
        kind = type(source).__name__
        raise UserError(f"{where}: scan returns {kind}, not an image_source.Source.")
    return source
