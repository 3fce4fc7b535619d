"""Scenes for detection, composed from the drawings that come with the project.

One to five drawings lie on a textured background, large and small, over each other and over
the border of the image. They are objects of seven classes: the drawings' categories, but
Flags (five concepts) and Symbols (signs, which are no things). Each object has a class drawn
uniformly, and then one of its drawings; so no class is rare.

Training scenes use the drawings of the split probe_train, test scenes those of probe_test
(see `emoji`). So the concepts in the test are new to the detector, and all are new to a
backbone that was pre-trained on the split pretrain.

A pixel belongs to the topmost object that covers at least half of it. As in VOC, a box is
that around the pixels of an object that can be seen, so after others have hidden some. An
object is `truncated` if more than a twentieth of its pixels is outside the image, and
`occluded` if as many are under other objects. With less than 30 % of its pixels seen it is
`difficult`; and no drawing is put where any object would be seen to less than 15 %.
"""

import hashlib
import os
import pathlib
import shutil
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from eval.detection.data.backgrounds import Draws, background
from input_pipeline.stores import emoji, prepared_images, preparing
from sp_jax import progress
from sp_jax.errors import UserError

TRAIN, TEST, SEED = 1000, 500, 0  # The scenes of the store "scenes".
# Names of the classes, and the drawings' categories.
CLASSES = {
    "activities": "Activities",
    "animals": "Animals & Nature",
    "food": "Food & Drink",
    "objects": "Objects",
    "people": "People & Body",
    "smileys": "Smileys & Emotion",
    "travel": "Travel & Places",
}
_DRAWINGS = {"train": "probe_train", "test": "probe_test"}
_YEAR = "VOC2007"  # A name that other programs know.
_SIZE = (150, 200)  # height, width; transposed for a quarter of the scenes
_MOST = 5  # objects a scene
_SIDES = (32, 110)  # of an object's longer side, in pixels
_OPAQUE = 128  # alpha, of 255
_OVER = 0.15  # share of an object's side over the border, at most
_FLAG, _DIFFICULT, _SEEN = 0.05, 0.3, 0.15  # shares of an object's pixels
_TRIES = 20  # places for a drawing
_QUALITY = 90
_VERSION = 1  # Raise it when scenes change.


class Scene(NamedTuple):
    """An image and the n objects in it."""

    image: np.ndarray  # uint8 [height, width, 3]
    names: list[str]  # n classes
    boxes: np.ndarray  # int64 [n, 4], x1, y1, x2, y2: pixels x1 to x2 - 1 are inside
    outside: np.ndarray  # float64 [n], share of an object's pixels outside the image
    seen: np.ndarray  # float64 [n], share that is inside and not under other objects


class Composer:
    """Composes scenes."""

    def __init__(self):
        meta = emoji.scan().meta()
        category = np.asarray(meta["attribute_names"]["category"])
        category = category[meta["attributes"]["category"]]  # of each drawing
        self.rows = {}  # for "train" and "test", class to the rows of its drawings
        for split, whole in _DRAWINGS.items():
            rows = np.asarray(meta["splits"][whole])
            self.rows[split] = {
                n: rows[category[rows] == c] for n, c in CLASSES.items()
            }
        self._tiles = emoji.read_tiles(emoji.ARCHIVE.read_bytes())

    def scene(self, split: str, seed: int, number: int) -> Scene:
        """A scene: a function of its split, a seed and a number, both at least 0."""
        draws = Draws(seed, list(_DRAWINGS).index(split), number)
        height, width = _SIZE if draws.integer(4) else _SIZE[::-1]
        image = background(draws, height, width)
        owner = np.full((height, width), -1)  # The object that a pixel belongs to.
        names, areas, outside = [], [], []
        for _ in range(1 + draws.integer(_MOST)):
            name, drawing = self._draw(draws, self.rows[split])
            covers = drawing[..., 3] >= _OPAQUE
            area = covers.sum()
            for _ in range(_TRIES):
                there, here = _place(draws, owner.shape, covers.shape)
                after = owner.copy()
                after[there][covers[here]] = len(names)
                if (_seen(after, [*areas, area]) >= _SEEN).all():
                    owner = after
                    image[there] = emoji.composite(drawing[here], image[there])
                    names.append(name)
                    areas.append(area)
                    outside.append(1 - covers[here].sum() / area)
                    break
        boxes = np.asarray([_box(owner == i) for i in range(len(names))])
        return Scene(image, names, boxes, np.asarray(outside), _seen(owner, areas))

    def _draw(
        self, draws: Draws, rows: dict[str, np.ndarray]
    ) -> tuple[str, np.ndarray]:
        """A class and a drawing of it, in some size: uint8 [h, w, 4]."""
        name = list(CLASSES)[draws.integer(len(CLASSES))]
        tile = self._tiles[rows[name][draws.integer(len(rows[name]))]]
        box = _box(tile[..., 3] >= _OPAQUE)
        low, high = _SIDES
        # Twice as large is as likely as half as large.
        side = round(low * (high / low) ** draws.uniform())
        width, height = box[2] - box[0], box[3] - box[1]
        scale = side / max(width, height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        resized = Image.fromarray(tile).resize(size, Image.BICUBIC, box)
        return name, np.asarray(resized)


def write(out: pathlib.Path, train: int, test: int, seed: int) -> None:
    """Write scenes in the layout that `voc` describes; the folder is complete or absent.

    Raises:
      UserError: a number or the seed is out of range, or the folder holds something.
    """
    if min(train, test) < 1:
        raise UserError("There must be at least one scene for training and for test.")
    if seed < 0:
        raise UserError(f"seed must be at least 0, not {seed}.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already: choose a new or an empty folder.")
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # Of a process that was killed.
    year = partial / _YEAR
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (year / folder).mkdir(parents=True)
    composer = Composer()
    for split, count in (("train", train), ("test", test)):
        ids = [f"{split}_{number:05d}" for number in range(count)]
        shown = progress.track(ids, f"composing scenes, {split}")
        for number, id in enumerate(shown):
            scene = composer.scene(split, seed, number)
            file = year / "JPEGImages" / f"{id}.jpg"
            Image.fromarray(scene.image).save(file, quality=_QUALITY)
            text = _annotation(scene, file.name)
            (year / "Annotations" / f"{id}.xml").write_bytes(text)
        (year / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(ids) + "\n")
    os.replace(partial, out)


def make_once(data_dir: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """The folder of the store "scenes", made if it is missing; UserError on a full disk."""
    drawings = hashlib.sha256(emoji.ARCHIVE.read_bytes()).hexdigest()
    key = f"{_VERSION} {drawings} {TRAIN} {TEST} {SEED}"
    key = hashlib.sha256(key.encode()).hexdigest()[:16]
    final = prepared_images.data_root(data_dir) / f"scenes-{key}"
    try:
        preparing.find_or_make(
            final.parent / ".locks" / final.name,
            lambda: final.exists() or None,
            lambda: write(final, TRAIN, TEST, SEED),
        )
    except OSError as error:
        raise UserError(
            f"Cannot write the scenes to {final.parent} ({error}): make room, or choose "
            "another folder by data_dir or $SP_JAX_DATA."
        ) from error
    return final


def _place(
    draws: Draws, image: tuple[int, int], drawing: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """A place for a drawing: the rows and columns of the image, and of the drawing."""
    there, here = [], []
    for whole, side in zip(image, drawing, strict=True):
        start = round(draws.uniform(-_OVER * side, whole - side + _OVER * side))
        first, last = max(0, start), min(whole, start + side)
        there.append(slice(first, last))
        here.append(slice(first - start, last - start))
    return tuple(there), tuple(here)


def _seen(owner: np.ndarray, areas: list[int]) -> np.ndarray:
    """The share of each object's pixels that belongs to it."""
    return np.bincount(owner.ravel() + 1, minlength=len(areas) + 1)[1:] / areas


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 around the true pixels, with x2 and y2 outside."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def _annotation(scene: Scene, file: str) -> bytes:
    """A scene's objects in the form of VOC."""
    height, width, depth = scene.image.shape
    root = ElementTree.Element("annotation")
    _add(root, folder=_YEAR, filename=file)
    size = ElementTree.SubElement(root, "size")
    _add(size, width=width, height=height, depth=depth)
    for name, (x1, y1, x2, y2), outside, seen in zip(*scene[1:], strict=True):
        object = ElementTree.SubElement(root, "object")
        _add(
            object,
            name=name,
            truncated=int(outside > _FLAG),
            occluded=int(1 - outside - seen > _FLAG),
            difficult=int(seen < _DIFFICULT),
        )
        box = ElementTree.SubElement(object, "bndbox")
        _add(box, xmin=x1 + 1, ymin=y1 + 1, xmax=x2, ymax=y2)
    ElementTree.indent(root)
    return ElementTree.tostring(root)


def _add(element: ElementTree.Element, **texts: object) -> None:
    for tag, text in texts.items():
        ElementTree.SubElement(element, tag).text = str(text)
