"""Image folders: `DIR/CLASS/*.jpg`, `DIR/{train,val,test}/CLASS/*.jpg`, `DIR/*.jpg`.

* Sub-folders are classes; deeper folders belong to the class above them.
* Folders named train, val or test are the splits, each with class folders (or with
  unlabelled images) in it. A class keeps its id in all of them. Other names of splits, such
  as Training, Validation or test_set, mean the same if nothing else holds images; dev, eval
  and trainval are splits of these names.
* Images without class folders are unlabelled: label -1.
* The content of a file without a suffix decides whether it is an image.

DIR may also be a zip archive of such a folder; `image_files` says what a single folder at its
top means.
"""

import collections
import functools
import os
import unicodedata

from absl import logging

from input_pipeline.stores import image_files
from input_pipeline.stores.image_files import SPLITS, File, Files, split_of
from input_pipeline.stores.image_source import Source, make_meta, source_of_files
from sp_jax.errors import UserError
from sp_jax.extras import install

# Files that often lie beside images, and that nobody expects to be used.
_ASIDE = (
    *(".txt", ".md", ".rst", ".pdf", ".doc", ".docx", ".rtf", ".html", ".htm", ".url"),
    *(".csv", ".tsv", ".xls", ".xlsx", ".json", ".jsonl", ".xml", ".yaml", ".yml"),
    *(".ini", ".cfg", ".toml", ".db", ".log", ".lst", ".md5", ".sha1", ".sha256"),
    *(".mat", ".npy", ".npz", ".h5", ".pkl", ".parquet", ".py", ".ipynb", ".sh", ".m"),
    *(".zip", ".gz", ".tar", ".tgz", ".rar", ".7z", ".bib", ".lnk"),
    *("readme", "license", "licence", "copying", "notice", "citation", "icon\r"),
)
_LAYOUT = (
    "put images into class folders (DIR/CLASS/x.jpg), class folders into "
    "DIR/train, DIR/val, DIR/test, or unlabelled images straight into DIR"
)


def scan(directory: str) -> Source:
    """The images of a folder; UserError if it is missing, empty or ambiguous."""
    files = image_files.list_files(directory, _LAYOUT)
    images, others = find_images(files, _LAYOUT)
    ids = [file.name for file in images]
    parts = _find_splits(files, ids)
    classes = {}
    for folder in parts or [""]:
        inside = [name for name in ids if name.startswith(folder)]
        classes |= _classes(files, inside, folder)
    ids = list(classes)
    if others:
        warn(files, others, ids)
    splits = {
        split: [i for i, name in enumerate(ids) if name.startswith(folder)]
        for folder, split in parts.items()
    }
    meta = functools.partial(make_meta, ids, list(classes.values()), splits)
    return source_of_files("folder", files, images, ids, meta)


def find_images(files: Files, layout: str) -> tuple[list[File], list[str]]:
    """The images, and the names of other files that a user may think are images.

    UserError if there are no images; `layout` says where they belong.
    """
    images, others = [], []
    for file in files.files:
        suffix = os.path.splitext(file.name)[1]
        if image_files.is_image(file.name):
            images.append(file)
        elif file.name.lower().endswith(_ASIDE):
            continue
        elif not suffix and image_files.begins_as_image(files, file.name):
            images.append(file)
        else:
            others.append(file.name)
    if not images:
        raise UserError(
            f"{files.root} holds no images ({', '.join(image_files.SUFFIXES)})"
            f"{', but ' + _describe(others) if others else ''}: {layout}."
        )
    return images, others


def _describe(others: list[str]) -> str:
    """The numbers of files of each kind, in words."""
    kinds = collections.Counter(os.path.splitext(name)[1] for name in others)
    most = [f"{n} {kind or 'without a suffix'}" for kind, n in kinds.most_common(5)]
    text = (
        f"{len(others)} files of other kinds ({', '.join(most)}), such as {others[0]}"
    )
    if image_files.heic_of(others):
        text += f" (to read HEIC: {install('heic')})"
    return text


def warn(files: Files, others: list[str], ids: list[str]) -> None:
    """Warn of files that are not used, and of folders in which no file is used."""
    lost = sorted(set(map(os.path.dirname, others)) - set(map(os.path.dirname, ids)))
    logging.warning(
        "%s: %s, are not used: convert them to JPEG or PNG, or remove them.%s",
        files.root,
        _describe(others),
        f" No file of these folders is used: {', '.join(lost[:10])}." if lost else "",
    )


def _find_splits(files: Files, ids: list[str]) -> dict[str, str]:
    """The folders that are splits, with "/", and the names of these; {} without splits."""
    tops = {name.rpartition("/")[0].partition("/")[0] for name in ids}
    found = {top: split_of(top) for top in tops if split_of(top)}
    if not found:
        return {}
    if len(found) == 1 and len(tops) > 1 and not set(found) & set(SPLITS):
        (top,) = found  # "train" may be a class: the means of transport.
        logging.warning(
            "%s: the folder %s is used as a class, not as a split, because there are other "
            "folders beside it.",
            files.root,
            top,
        )
        return {}
    if beside := tops - set(found):
        images = [name for name in ids if name.partition("/")[0] in beside]
        images += [name for name in ids if "/" not in name]
        raise UserError(
            f"{files.root} has the split folders {', '.join(sorted(found))}, but also images "
            f"outside them, such as {images[0]}: move these into a split or elsewhere."
        )
    folders = {}
    for top, split in sorted(found.items()):
        if split in folders:
            raise UserError(
                f"{files.root} has two folders for the split {split}, {folders[split]} "
                f"and {top}: put the images of both into one."
            )
        folders[split] = top
    order = [*(s for s in SPLITS if s in folders), *sorted(set(folders) - set(SPLITS))]
    return {f"{folders[split]}/": split for split in order}


def _classes(files: Files, ids: list[str], prefix: str) -> dict[str, str | None]:
    """The class of each image of a split: the folder that it lies in; None without one."""
    inside = {name: name.removeprefix(prefix) for name in ids}
    flat = [name for name, rest in inside.items() if "/" not in rest]
    if flat and len(flat) < len(ids):
        raise UserError(
            f"{files.root / prefix} holds both class folders and images outside them "
            f"(e.g. {inside[flat[0]]}): move these into a class folder or elsewhere, or "
            "take all of them without labels with images:DIR instead of folder:DIR."
        )
    # A name written on macOS may have another form than the same one on Linux.
    classes = {
        name: None if flat else unicodedata.normalize("NFC", rest.partition("/")[0])
        for name, rest in inside.items()
    }
    deeper = any(rest.count("/") > 1 for rest in inside.values())
    only = set(classes.values())
    if prefix and deeper and len(only) == 1 and split_of(*only):
        raise UserError(
            f"{files.root / prefix} holds only the folder {only.pop()}, a split in a "
            "split: move its class folders up."
        )
    return classes
