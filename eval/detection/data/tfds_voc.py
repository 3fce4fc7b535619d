"""PASCAL VOC of TensorFlow Datasets, read without TensorFlow; see `input_pipeline.stores.tfds`.

tfds:voc with the years in the split, such as 2007/trainval+2012/trainval, or one of them:
tfds:voc/2007 with the split test. Splits are train, validation, test, and trainval, which is
the first two.

Ids, classes and boxes are those of `voc`, though in another order. TFDS divides what VOC
counts from 1 by the size of the image, so that is undone. It opens every image once, for its
size: some seconds for 16,000 images.
"""

import io
from typing import Any

import numpy as np
from PIL import Image

from eval.detection.data.box_store import Annotation, BoxStore, make_store
from input_pipeline.stores import tfds
from sp_jax.errors import UserError

_SPLITS = {"trainval": ("train", "validation")}
_SPLITS |= {name: (name,) for name in ("train", "validation", "test")}
_DECIMALS = 3  # float32 of TFDS holds pixels to some 0.00003.


def open_tfds(name: str, dataset: str, split: str) -> BoxStore:
    """The images of splits of VOC; `dataset` is "voc", "voc/2007" or "voc/2012".

    Raises:
      UserError: the split is unknown or has no boxes, or the set is not prepared.
    """
    parts = [x for text in split.split("+") for x in _parts(dataset, text.strip())]
    if len(set(parts)) < len(parts):
        raise UserError(f"{split} has images of {name} twice: name disjoint splits.")
    builders = {whole: tfds.open_builder(whole) for whole, _ in parts}
    classes = builders[parts[0][0]].info.features["objects"]["label"].names
    sources, annotations = [], []
    for whole, one in parts:
        examples = tfds.encoded(builders[whole], one)
        year = f"VOC{builders[whole].builder_config.name}"
        read = [_annotation(x, year, classes) for x in tfds.read_examples(examples)]
        if not any(annotation.names for annotation in read):
            raise UserError(
                f"The split {one} of tfds:{whole} has no boxes (VOC keeps those of its "
                "test of 2012 to itself): choose another split."
            )
        annotations += read
        sources += [(examples, place) for place in range(len(read))]

    def encoded(row: int) -> bytes:
        examples, place = sources[row]
        return examples[place]["image"]

    return make_store(name, split, classes, annotations, encoded)


def _parts(dataset: str, text: str) -> list[tuple[str, str]]:
    """The dataset and its splits that one part of a split names."""
    year, slash, split = text.rpartition("/")
    if bool(slash) == ("/" in dataset) or split not in _SPLITS:
        first = "" if "/" in dataset else "2007/"
        known = ", ".join(f"{first}{name}" for name in _SPLITS)
        raise UserError(
            f"tfds:{dataset} has no split {text!r}: choose from {known}, joined by +."
        )
    whole = f"{dataset}/{year}" if slash else dataset
    return [(whole, one) for one in _SPLITS[split]]


def _annotation(example: dict[str, Any], year: str, classes: list[str]) -> Annotation:
    """The annotation of an image in TFDS: boxes are ymin, xmin, ymax, xmax as shares of it."""
    stem = tfds.text(example["image/filename"]).removesuffix(".jpg")
    with Image.open(io.BytesIO(example["image"]), formats=("JPEG",)) as image:
        size = (image.height, image.width)
    objects = example["objects"]
    shares = np.asarray(objects["bbox"], np.float64).reshape(-1, 4)
    corners = np.round(shares * [*size, *size], _DECIMALS)[:, [1, 0, 3, 2]]
    boxes = (corners - [1, 1, 0, 0]).astype(np.float32)
    names = [classes[label] for label in objects["label"]]
    difficult = np.asarray(objects["is_difficult"], bool)
    return Annotation(f"{year}/{stem}", size, names, boxes, difficult)
