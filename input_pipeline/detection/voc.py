"""PASCAL VOC's folders: JPEGImages, Annotations, ImageSets/Main.

The annotations are XML; a document type, and so every entity, is refused. Corners are counted
from 1 and belong to the box, so a box of VOC is [xmin - 1, xmax] wide.

Source: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html
"""

import math
import pathlib
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np
from PIL import Image

from input_pipeline.detection.boxes import Annotation, BoxStore, make_store
from sp_jax.errors import UserError

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"),
    *("cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_LAYOUT = "it needs JPEGImages, Annotations and ImageSets/Main/SPLIT.txt"


def open_folder(name: str, path: str, split: str) -> BoxStore:
    """Open splits of a folder in VOC's layout.

    The classes are VOC's twenty; where any annotation of the folder has another one, those
    of all annotations, in alphabetical order. So they are the same in every split.

    Args:
      name: of the store.
      path: VOCdevkit, with folders of years in it; or one of these.
      split: YEAR/SPLIT, or SPLIT where there is one year; several with + between.

    Raises:
      UserError: a file is missing or wrong.
    """
    root = pathlib.Path(path).expanduser().absolute()
    years = _find_years(root)
    known = {
        path: read_annotation(path)
        for folder in years.values()
        for path in sorted((folder / "Annotations").glob("*.xml"))
    }
    annotations, images = [], []
    for part in split.split("+"):
        year, slash, own = part.strip().rpartition("/")
        if not slash and len(years) > 1:
            raise UserError(
                f"{root} holds {', '.join(years)}: say which one, such as "
                f"{min(years)}/{part}."
            )
        folder = years.get(year) if slash else next(iter(years.values()))
        if folder is None:
            raise UserError(f"{root} has no {year}, but {', '.join(years)}.")
        for id in _read_split(folder, own):
            path = folder / "Annotations" / f"{id}.xml"
            annotations.append(known.get(path) or read_annotation(path))
            images.append(folder / "JPEGImages" / f"{id}.jpg")
    if len(set(images)) < len(images):
        raise UserError(f"{split} has images of {root} twice: name splits apart.")
    for image, annotation in zip(images, annotations, strict=True):
        _check_size(image, annotation.size)
    names = {name for one in known.values() for name in one.names}
    classes = CLASSES if names <= set(CLASSES) else tuple(sorted(names))
    return make_store(
        name, split, classes, annotations, lambda row: images[row].read_bytes()
    )


def _find_years(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Folders in VOC's layout by name, sorted: those in a folder, or the folder itself."""
    if not root.is_dir():
        raise UserError(f"There is no folder {root}: give the one with VOC's images.")
    if (root / "Annotations").is_dir():
        return {root.name: root}
    years = {p.name: p for p in sorted(root.iterdir()) if (p / "Annotations").is_dir()}
    if not years:
        raise UserError(
            f"{root} is not in VOC's layout, nor is a folder in it: {_LAYOUT}."
        )
    return years


def _read_split(folder: pathlib.Path, split: str) -> list[str]:
    """The names of a split's images."""
    sets = folder / "ImageSets" / "Main"
    try:
        lines = (sets / f"{split}.txt").read_text(encoding="utf-8").splitlines()
    except OSError:
        # Beside them are lists of each class, such as dog_train.
        known = sorted(p.stem for p in sets.glob("*.txt") if "_" not in p.stem)
        raise UserError(
            f"{folder} has no split {split!r}, but {', '.join(known) or 'none'}: {_LAYOUT}."
        ) from None
    ids = [line.strip() for line in lines if line.strip()]
    for id in ids:
        if len(id.split()) > 1:  # Those lists name all images, with a flag.
            raise UserError(
                f"{sets / split}.txt has a line {id!r} instead of the name of an image: "
                "choose a split such as trainval."
            )
    return ids


def _check_size(path: pathlib.Path, size: tuple[int, int]) -> None:
    """Read the header of an image: missing files and wrong ones are found early."""
    try:
        with Image.open(path, formats=("JPEG",)) as image:
            width, height = image.size
    except Exception as error:  # PIL raises many types.
        missing = isinstance(error, FileNotFoundError)
        raise UserError(
            f"{path} is {'missing' if missing else 'no JPEG file'}: restore it, or take "
            "it out of the split."
        ) from error
    if (height, width) != size:
        raise UserError(
            f"{path} is {width} x {height} pixels, but its annotation says {size[1]} x "
            f"{size[0]}: its boxes would be wrong, so correct one of them."
        )


def read_annotation(path: pathlib.Path) -> Annotation:
    """Read one file of annotations.

    Raises:
      UserError: it is missing, or not as VOC's.
    """
    try:
        root = parse(path.read_bytes())
        height, width = (_number(root, f"size/{side}") for side in ("height", "width"))
        objects = root.findall("object")
        names = [_text(one, "name") for one in objects]
        corners = [
            [_number(one, f"bndbox/{side}") for side in _CORNERS] for one in objects
        ]
        difficult = [
            (one.findtext("difficult") or "0").strip() == "1" for one in objects
        ]
    except OSError:
        raise UserError(f"{path} is missing or not readable: restore it.") from None
    except (ValueError, expat.ExpatError) as error:
        raise UserError(
            f"{path} is no annotation of VOC ({error}): correct or restore it."
        ) from error
    boxes = np.array(corners, np.float64).reshape(-1, 4) - [1, 1, 0, 0]
    return Annotation(
        id=f"{path.parts[-3]}/{path.stem}",
        size=(int(height), int(width)),
        names=names,
        boxes=boxes.astype(np.float32),
        difficult=np.array(difficult, bool),
    )


def _text(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path, "").strip()
    if not text:
        raise ValueError(f"{element.tag}/{path} is missing")
    return text


def _number(element: ElementTree.Element, path: str) -> float:
    text = _text(element, path)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{element.tag}/{path} is {text!r} instead of a number")
    return number


def parse(content: bytes) -> ElementTree.Element:
    """Parse XML without a document type, and so without entities of its own.

    Raises:
      ValueError: it has one.
      xml.parsers.expat.ExpatError: it is no XML.
    """
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()

    def refuse(*_):
        raise ValueError("it declares a document type, which is not allowed")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.Parse(content, True)
    return builder.close()
