"""Image folders: `DIR/CLASS/*.jpg`, `DIR/{train,val,test}/CLASS/*.jpg`, `DIR/*.jpg`.

* Sub-folders are classes; deeper folders belong to the class above them.
* Folders named train, val or test are the splits, each with class folders (or with
  unlabelled images) in it. A class keeps its id in all of them.
* Images without class folders are unlabelled: label -1.

DIR may also be a zip archive of such a folder; `files` says what a folder around everything
in it means.
"""

from input_pipeline.files import SPLITS, SUFFIXES, Files, is_image, list_files
from input_pipeline.source import Source, key_of, make_meta
from sp_jax.errors import UserError

_LAYOUT = (
    "put images into class folders (DIR/CLASS/x.jpg), class folders into "
    "DIR/train, DIR/val, DIR/test, or unlabelled images straight into DIR"
)


def scan(directory: str) -> Source:
    """The images of a folder.

    Raises:
      UserError: the folder is missing, empty or ambiguous.
    """
    files = list_files(directory, _LAYOUT)
    images = [file for file in files.files if is_image(file.name)]
    if not images:
        raise UserError(
            f"{files.root} holds no images ({', '.join(SUFFIXES)}): {_LAYOUT}."
        )
    ids = [file.name for file in images]
    tops = {name.partition("/")[0] for name in ids if "/" in name}
    parts = [part for part in SPLITS if part in tops]
    if parts:
        _check_only_splits(files, ids, parts)
    splits, classes = {}, {}
    for part in parts or [""]:
        inside = [name for name in ids if name.startswith(part)] if part else ids
        classes |= _classes(files, inside, part)
    ids = list(classes)
    for part in parts:
        splits[part] = [i for i, name in enumerate(ids) if name.startswith(f"{part}/")]
    return Source(
        name=f"folder-{files.root.resolve().name}",
        key=key_of(images),
        meta=lambda: make_meta(ids, list(classes.values()), splits),
        open_reader=lambda: lambda row: files.read(ids[row]),
    )


def _check_only_splits(files: Files, ids: list[str], parts: list[str]) -> None:
    """Beside train, val and test nothing may hold images: they would be overlooked."""
    for name in ids:
        top = name.partition("/")[0]
        if top not in parts:
            raise UserError(
                f"{files.root} has the split folders {', '.join(parts)} and beside them "
                f"images in {top}: move these into a split or elsewhere."
            )


def _classes(files: Files, ids: list[str], part: str) -> dict[str, str | None]:
    """The class of each image of a split: the folder that it lies in; None without one."""
    prefix = f"{part}/" if part else ""
    inside = {name: name.removeprefix(prefix) for name in ids}
    flat = [name for name, rest in inside.items() if "/" not in rest]
    if flat and len(flat) < len(ids):
        raise UserError(
            f"{files.root / part} holds both class folders and images outside of them "
            f"(e.g. {inside[flat[0]]}): move these into a class folder or elsewhere."
        )
    return {
        name: rest.partition("/")[0] if "/" in rest else None
        for name, rest in inside.items()
    }
