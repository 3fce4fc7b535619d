"""The pictures of the page: the original images as PNG files, in the size needed."""

import io
from collections.abc import Callable

from PIL import Image

from input_pipeline.stores import ImageStore, decode, open_source
from input_pipeline.stores.image_files import read_in
from input_pipeline.stores.image_source import Reader

LARGE, SMALL = 640, 256  # Pixels of a side, at most: of one pair, and of a tile.


def original_pictures(store: ImageStore) -> Callable[..., bytes]:
    """A function from a row, and a largest side, to a PNG of the original image.

    It is larger than what training sees.
    """
    read = _reader(store)

    def picture(row: int, side: int = LARGE) -> bytes:
        content = read(row)
        encoded = isinstance(content, bytes)
        image = decode.open_rgb(content) if encoded else Image.fromarray(content)
        image.thumbnail((side, side))
        file = io.BytesIO()
        image.save(file, "PNG", compress_level=1)  # Time counts here, and bytes do not.
        return file.getvalue()

    return picture


def _reader(store: ImageStore) -> Reader:
    if store.name.startswith("array_record:"):
        return store.read
    if store.root and store.root.is_dir():  # To list a large one takes seconds.
        read_file = read_in(store.root)
        return lambda row: read_file(store.ids[row])
    source = open_source(store.name)
    rows = {name: row for row, name in enumerate(source.meta()["ids"])}
    read = source.open_reader()
    return lambda row: read(rows[store.ids[row]])
