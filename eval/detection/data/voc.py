"""PASCAL VOC's folders: JPEGImages, Annotations, ImageSets/Main.

An image may have another suffix than .jpg, and its name may hold spaces. Hidden files are left
alone.

Source: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html
"""

import pathlib
import re
from collections.abc import Sequence

from PIL import Image

from eval.detection.data.box_store import BoxStore, check_size, make_store
from eval.detection.data.voc_annotation import read_annotation
from input_pipeline.stores.decode import FORMATS
from input_pipeline.stores.image_files import list_files
from input_pipeline.text_files import finder, read_lines
from sp_jax import progress
from sp_jax.errors import UserError

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"),
    *("cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)
_HIDDEN = (".", "__MACOSX")  # what a Mac adds
_LAYOUT = "it needs JPEGImages, Annotations and ImageSets/Main/SPLIT.txt"


def open_folder(name: str, path: str, split: str) -> BoxStore:
    """Open splits of VOCdevkit, which has folders of years, or of one of these folders.

    A split is YEAR/SPLIT, or SPLIT where there is one year; several have + between. The classes
    are VOC's twenty; where any annotation of the folder has another one, those of all
    annotations, in alphabetical order. So they are the same in every split.

    Raises:
      UserError: a file is missing or wrong.
    """
    root = pathlib.Path(path).expanduser().absolute()
    years = _find_years(root)
    known = {
        year: {
            id: read_annotation(path)
            for id, paths in _by_id(folder / "Annotations").items()
            for path in paths
            if path.suffix.lower() == ".xml"
        }
        for year, folder in years.items()
    }
    annotations, images = [], []
    for part in split.split("+"):
        year, slash, own = part.strip().rpartition("/")
        if not slash:
            year, *others = years
            if others:
                raise UserError(
                    f"{root} holds {', '.join(years)}: say which one, such as "
                    f"{year}/{part}."
                )
        if year not in years:
            raise UserError(f"{root} has no {year}, but {', '.join(years)}.")
        ids = _read_split(years[year], own, list(known[year]))
        annotations += [known[year][id] for id in ids]
        images += _find_images(years[year], ids)
    if len(set(images)) < len(images):
        raise UserError(f"{split} has images of {root} twice: name disjoint splits.")
    both = list(zip(images, annotations, strict=True))
    for image, annotation in progress.track(both, f"checking {name} {split}"):
        _check_header(image, annotation.size)
    everything = [one for year in known.values() for one in year.values()]
    names = set().union(*(one.names for one in everything))
    classes = CLASSES if names <= set(CLASSES) else sorted(names)
    return make_store(
        name, split, classes, annotations, lambda row: images[row].read_bytes()
    )


def _find_years(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Folders in VOC's layout, sorted by name: those in a folder, or the folder itself."""
    if not root.is_dir():
        raise UserError(f"There is no folder {root}: give the one with VOC's images.")
    if (root / "Annotations").is_dir():
        return {root.name: root}
    years = {
        path.name: path
        for path in sorted(root.iterdir())
        if (path / "Annotations").is_dir() and not path.name.startswith(_HIDDEN)
    }
    if not years:
        raise UserError(
            f"{root} is not in VOC's layout, nor is a folder in it: {_LAYOUT}."
        )
    return years


def _by_id(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Files below a folder by their names without the suffix, without hidden files."""
    found: dict[str, list[pathlib.Path]] = {}
    for file in list_files(folder, _LAYOUT).files:
        found.setdefault(file.name.rpartition(".")[0], []).append(folder / file.name)
    return found


def _read_split(folder: pathlib.Path, split: str, known: Sequence[str]) -> list[str]:
    """The names of a split's images, all of which have annotations."""
    sets = folder / "ImageSets" / "Main"
    path = sets / f"{split}.txt"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        # Beside them are lists of each class, such as dog_train.
        names = [p.stem for p in sorted(sets.glob("*.txt"))]
        others = [x for x in names if "_" not in x and not x.startswith(_HIDDEN)]
        raise UserError(
            f"{folder} has no split {split!r}, but {', '.join(others) or 'none'}: "
            f"{_LAYOUT}."
        ) from None
    find, ids = finder(known), []
    for line in map(str.strip, read_lines(content, path)):
        if (place := find(line)) is not None:
            ids.append(known[place])
        elif re.fullmatch(r"\S+\s+(-1|0|1)", line):  # Those lists have all images.
            raise UserError(
                f"{path} has a line {line!r} instead of the name of an image: choose a "
                "split such as trainval."
            )
        elif line:
            raise UserError(
                f"{folder / 'Annotations' / line}.xml is missing: restore it, or take "
                f"{line!r} out of {path}."
            )
    return ids


def _find_images(folder: pathlib.Path, ids: Sequence[str]) -> list[pathlib.Path]:
    """The image of each name: NAME.jpg, or the only one with another suffix."""
    files = _by_id(folder / "JPEGImages")
    find, places, found = finder(files), list(files.values()), []
    for id in ids:
        place = find(id)
        paths = [] if place is None else places[place]
        images = [p for p in paths if p.suffix.lower() in Image.registered_extensions()]
        usual = [path for path in images if path.suffix == ".jpg"]
        if len(usual or images) > 1:
            raise UserError(
                f"{folder / 'JPEGImages'} holds {' and '.join(p.name for p in images)}: "
                "keep the one that the annotation belongs to."
            )
        found += usual or images or [folder / "JPEGImages" / f"{id}.jpg"]
    return found


def _check_header(path: pathlib.Path, size: tuple[int, int]) -> None:
    """Find missing and wrong files early."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            found = image.size
    except Exception as error:  # PIL raises many types.
        missing, kinds = isinstance(error, FileNotFoundError), ", ".join(FORMATS)
        raise UserError(
            f"{path} is {'missing' if missing else f'none of {kinds}'}: restore it, or "
            "take it out of the split."
        ) from error
    check_size(str(path), found, size)
