"""The pictures of the page: the original images, as PNG files of the size that is needed."""

import io
from collections.abc import Callable

from PIL import Image

from input_pipeline.stores import ImageStore, decode, open_source

LARGE, SMALL = 640, 256  # Pixels of a side, at most: of one pair, and of a tile.


def original_pictures(store: ImageStore) -> Callable[..., bytes]:
    """A function from a row, and a largest side, to a PNG of the original image.

    It is larger than what training sees.
    """
    if store.name.startswith("array_record:"):
        return lambda row, side=LARGE: _png(Image.fromarray(store.read(row)), side)
    source = open_source(store.name)
    rows = {name: row for row, name in enumerate(source.meta()["ids"])}
    read = source.open_reader()

    def picture(row: int, side: int = LARGE) -> bytes:
        content = read(rows[store.ids[row]])
        encoded = isinstance(content, bytes)
        image = decode.open_rgb(content) if encoded else Image.fromarray(content)
        return _png(image, side)

    return picture


def _png(image: Image.Image, side: int) -> bytes:
    image.thumbnail((side, side))
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)  # Time counts here, and bytes do not.
    return file.getvalue()
