"""Images without labels: all below a folder, at any depth, or those of a list.

`images:DIR` is a folder or a zip archive; ids are the relative paths. `images:LIST.txt` is a
text file with a path a line, relative to its own folder or absolute; they are the ids. There
are no classes and no splits: such a store is for augmentation pairs, mining, curating and
features.
"""

import functools
import pathlib

from input_pipeline import text_files
from input_pipeline.stores import folder
from input_pipeline.stores.image_files import (
    File,
    Files,
    can_read_heic,
    heic_of,
    list_files,
    read_in,
)
from input_pipeline.stores.image_source import Source, make_meta, source_of_files
from sp_jax.errors import UserError
from sp_jax.extras import install

_LAYOUT = "put images into it, or into folders in it at any depth"


def scan(path: str) -> Source:
    """The images of a folder or a list; UserError if there are none, or one is missing."""
    root = pathlib.Path(path).expanduser()
    if root.suffix.lower() == ".txt" and root.is_file():
        files = _listed(root)
        images, others = files.files, []
    else:
        files = list_files(root, _LAYOUT)
        images, others = folder.find_images(files, _LAYOUT)
    ids = [file.name for file in images]
    if (heic := heic_of([*ids, *others])) and not can_read_heic():
        raise UserError(
            f"{path} has {len(heic)} HEIC images, such as {heic[0]}: to read them, "
            f"{install('heic')}, or convert them to JPEG."
        )
    if others:
        folder.warn(files, others, ids)
    meta = functools.partial(make_meta, ids, [None] * len(ids), {})
    return source_of_files("images", files, images, ids, meta)


def _listed(path: pathlib.Path) -> Files:
    """The files whose paths a text file lists; repeated paths count once."""
    lines = text_files.read_lines(path.read_bytes(), path)
    names = dict.fromkeys(line.strip() for line in lines if line.strip())
    if not names:
        raise UserError(f"{path} is empty: write the path of an image on each line.")
    root, files = path.parent, []
    for name in names:
        try:
            stat = (root / name).stat()
        except OSError as error:
            raise UserError(
                f"{path} lists {name}, which cannot be read ({error.strerror}): correct the "
                "path; it is absolute, or relative to the folder of the list."
            ) from error
        files.append(File(name, stat.st_size, stat.st_mtime_ns))
    return Files(root, tuple(files), read_in(root))
