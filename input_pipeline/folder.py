"""Image folders: `DIR/CLASS/*.jpg`, `DIR/{train,val,test}/CLASS/*.jpg`, `DIR/*.jpg`.

* Sub-folders are classes; deeper folders belong to the class above them.
* Folders named train, val or test are the splits, each with class folders (or with
  unlabelled images) in it. A class keeps its id in all of them.
* Images without class folders are unlabelled: label -1.

An image is turned as its EXIF orientation says, converted to RGB, resized so that its
shorter side is the store's image size (bicubic, antialiased) and cropped at the centre.
"""

import hashlib
import os
import pathlib
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from input_pipeline import cache
from input_pipeline.errors import UserError

SPLITS = ("train", "val", "test")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_LAYOUT = (
    "put images into class folders (DIR/CLASS/x.jpg), class folders into "
    "DIR/train, DIR/val, DIR/test, or unlabelled images straight into DIR"
)


def prepare(
    directory: str, image_size: int, data_dir: str | os.PathLike[str] | None = None
) -> cache.Prepared:
    """Open a folder of images at the given size; decode it when new or changed.

    Raises:
      UserError: the folder is missing, empty or ambiguous, or a file is no image.
    """
    root = pathlib.Path(directory).expanduser()
    if not root.is_dir():
        raise UserError(f"There is no folder {root}: create it and {_LAYOUT}.")
    meta, listing = _scan(root)
    whole = hashlib.sha256(f"{cache.FORMAT} {image_size}".encode())
    for name, size, modified in listing:
        whole.update(f"\0{name}\0{size}\0{modified}".encode("utf-8", "surrogateescape"))
    paths = [root / name for name in meta["ids"]]
    return cache.load_or_prepare(
        data_dir,
        f"folder-{root.resolve().name}",
        whole.hexdigest(),
        meta,
        image_size,
        lambda: lambda row: read_image(paths[row], image_size),
    )


def read_image(path: str | os.PathLike[str], size: int) -> np.ndarray:
    """One file as uint8 [size, size, 3]; see the top of this file.

    Raises:
      UserError: the file is damaged, no image, or has more than 8 bits a channel.
    """
    try:
        with Image.open(path) as opened:
            if opened.mode[0] in "IF":  # PIL would clip these to white.
                raise UserError(
                    f"{path} has more than 8 bits a channel: convert it to 8 bits."
                )
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except UserError:
        raise
    except Exception as error:  # PIL's decoders raise many types.
        raise UserError(
            f"Cannot decode {path} ({error}): replace or remove the file."
        ) from error
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


def _scan(root: pathlib.Path) -> tuple[dict[str, Any], list[tuple[str, int, int]]]:
    """Ids, labels and splits of a folder; and (name, bytes, mtime_ns) of each file."""
    parts = [part for part in SPLITS if (root / part).is_dir()]
    if parts:
        _check_only_splits(root, parts)
    found: dict[str, list[tuple[str, str | None]]] = {}
    for part in parts or ["all"]:
        found[part] = _class_files(root / part if parts else root, root)
    names = sorted({c for files in found.values() for _, c in files if c is not None})
    number: dict[str | None, int] = {name: i for i, name in enumerate(names)}
    number[None] = -1
    ids, labels, splits = [], [], {}
    for part, files in found.items():
        splits[part] = list(range(len(ids), len(ids) + len(files)))
        ids += [name for name, _ in files]
        labels += [number[c] for _, c in files]
    if not ids:
        raise UserError(f"{root} holds no images ({', '.join(SUFFIXES)}): {_LAYOUT}.")
    if not parts:
        del splits["all"]  # `open_store` knows it.
    stats = [(name, (root / name).stat()) for name in ids]
    listing = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    meta = {
        "ids": ids,
        "labels": labels,
        "class_names": names,
        "attributes": {},
        "attribute_names": {},
        "splits": splits,
    }
    return meta, listing


def _check_only_splits(root: pathlib.Path, parts: list[str]) -> None:
    """Beside train, val and test nothing may hold images: they would be overlooked."""
    for entry in sorted(root.iterdir()):
        if entry.name in parts or entry.name.startswith("."):
            continue
        if _is_image(entry) or (entry.is_dir() and _images_below(entry)):
            raise UserError(
                f"{root} has the split folders {', '.join(parts)} and beside them "
                f"images in {entry.name}: move these into a split or elsewhere."
            )


def _class_files(
    directory: pathlib.Path, root: pathlib.Path
) -> list[tuple[str, str | None]]:
    """(file name relative to root, class or None) of each image, sorted."""
    entries = sorted(
        entry for entry in directory.iterdir() if not entry.name.startswith(".")
    )
    flat = [entry for entry in entries if _is_image(entry)]
    classed = [
        (path, entry.name)
        for entry in entries
        if entry.is_dir()
        for path in _images_below(entry)
    ]
    if flat and classed:
        raise UserError(
            f"{directory} holds both class folders and images outside of them "
            f"(e.g. {flat[0].name}): move these into a class folder or elsewhere."
        )
    files = classed or [(path, None) for path in flat]
    return [(path.relative_to(root).as_posix(), name) for path, name in files]


def _images_below(directory: pathlib.Path) -> list[pathlib.Path]:
    """Every image in a folder and its sub-folders, linked ones too, sorted."""
    found = []
    for parent, folders, files in os.walk(directory, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [pathlib.Path(parent, name) for name in files]
    return sorted(path for path in found if _is_image(path))


def _is_image(path: pathlib.Path) -> bool:
    hidden = path.name.startswith(".")  # E.g. macOS's ._x.jpg, which is no image.
    return path.suffix.lower() in SUFFIXES and not hidden and path.is_file()
