"""Tiny-ImageNet as Stanford's CS231n packed it: `tiny-imagenet-200.zip`, or its folder.

    wnids.txt                      200 class ids (WordNet)
    words.txt                      "n01443537<TAB>goldfish, Carassius auratus"
    train/n01443537/images/*.JPEG  500 an id
    val/images/*.JPEG              10,000, their ids in val/val_annotations.txt
    test/images/*.JPEG             10,000, unlabelled

The archive can be read as it is. A part of the set will do: train, val and test are the
splits, as far as they are there. A class is named by its id and the first of its words, such
as "n01443537 goldfish".

Source: http://cs231n.stanford.edu/tiny-imagenet-200.zip
"""

from typing import Any

from input_pipeline import text_files
from input_pipeline.stores.image_files import SPLITS, Files, is_image, list_files
from input_pipeline.stores.image_source import Source, make_meta, source_of_files
from sp_jax.errors import UserError

_TABLES = ("wnids.txt", "words.txt", "val/val_annotations.txt")
_LAYOUT = (
    "download http://cs231n.stanford.edu/tiny-imagenet-200.zip, and give the path of the "
    "archive, or of its unpacked folder with wnids.txt and train/"
)


def scan(directory: str) -> Source:
    """The images of Tiny-ImageNet; UserError if they are missing, or in another layout."""
    files = list_files(directory, _LAYOUT)
    images = [
        file
        for file in files.files
        if is_image(file.name) and file.name.partition("/")[0] in SPLITS
    ]
    names = {file.name for file in files.files}
    if "wnids.txt" not in names or not images:
        raise UserError(f"{files.root} is not Tiny-ImageNet: {_LAYOUT}.")
    ids = sorted(
        (file.name for file in images),
        key=lambda name: (SPLITS.index(name.partition("/")[0]), name),
    )
    splits = {
        part: rows
        for part in SPLITS
        if (rows := [i for i, name in enumerate(ids) if name.startswith(f"{part}/")])
    }

    def meta() -> dict[str, Any]:
        lines = _lines(files, "words.txt") if "words.txt" in names else []
        words = {
            fields[0]: f"{fields[0]} {fields[-1].partition(',')[0]}" for fields in lines
        }
        return make_meta(ids, _classes(files, ids), splits, words)

    tables = [file for file in files.files if file.name in _TABLES]
    return source_of_files("tiny_imagenet", files, [*images, *tables], ids, meta)


def _classes(files: Files, ids: list[str]) -> list[str | None]:
    """The WordNet id of each image; None for those of the test split."""
    of_val = {}
    if any(name.startswith("val/") for name in ids):
        of_val = {
            f"val/images/{fields[0]}": fields[1]
            for fields in _lines(files, "val/val_annotations.txt", columns=2)
        }
    known = {fields[0] for fields in _lines(files, "wnids.txt")}
    classes = []
    for name in ids:
        part, _, rest = name.partition("/")
        found = rest.partition("/")[0] if part == "train" else of_val.get(name)
        if part != "test" and found not in known:
            raise UserError(
                f"{files.root}: {name} is of class {found!r}, which wnids.txt does not "
                f"have: {_LAYOUT}."
            )
        classes.append(found)
    return classes


def _lines(files: Files, name: str, columns: int = 1) -> list[list[str]]:
    """The tab-separated fields of each line of a table: at least `columns`."""
    where = f"{files.root}:"
    try:
        content = files.read(name)
    except OSError as error:
        raise UserError(f"{where} cannot read {name} ({error}): {_LAYOUT}.") from error
    text = text_files.read_lines(content, f"{where} {name}")
    lines = [line.split("\t") for line in text if line.strip()]
    for fields in lines:
        if len(fields) < columns:
            line = f"the line {fields[0]!r} of {name}"
            raise UserError(f"{where} {line} has no tab: {_LAYOUT}.")
    return lines
