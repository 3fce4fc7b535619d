"""One encoded image to pixels of a store: whatever the file holds, or a reason why not.

An image is turned as its EXIF orientation says, laid on white where it is transparent,
converted to 8-bit RGB (16-bit grayscale is scaled, CMYK and palettes are converted, of an
animation the first frame is taken) and resized, bicubic and antialiased:

* "crop": the shorter side becomes the store's image size, then the centre is cropped;
* "squash": both sides become the image size; nothing is lost, but shapes change.
"""

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

Resize = Literal["crop", "squash"]
RESIZES = ("crop", "squash")
# What `files.SUFFIXES` name. PIL goes by the content, and may start programs for others,
# such as Ghostscript for EPS.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
# A few kilobytes can claim far more.
MAX_PIXELS = 100_000_000
# Of all images that are being decoded. A pixel takes up to 20 bytes on the way: 4 GB.
_PIXELS_IN_FLIGHT = 200_000_000
# Raise it when the pixels that come out change: prepared images are made anew.
VERSION = 2


class BadImage(Exception):
    """An image that cannot be used; its text says why."""


def decode(content: bytes, size: int, resize: Resize = "crop") -> np.ndarray:
    """Decode an encoded image: uint8 [size, size, 3]; see the top of this file.

    Raises:
      BadImage: see `open_rgb`.
    """
    with _opened(content) as image:
        return fit(_rgb(image), size, resize)


def open_rgb(content: bytes, upright: bool = True) -> Image.Image:
    """Decode an encoded image at its own size, as 8-bit RGB.

    Args:
      content: the file.
      upright: turn it as its EXIF orientation says; else pixels stay where they are stored.

    Raises:
      BadImage: the file is empty, damaged, no image, too large, or has floating point or
        32-bit pixels, whose range is unknown.
    """
    with _opened(content) as image:
        return _rgb(image, upright)


def fit(image: Image.Image, size: int, resize: Resize = "crop") -> np.ndarray:
    """Resize an RGB image to uint8 [size, size, 3]."""
    width, height = image.size
    if resize == "squash":
        if size * height > MAX_PIXELS:  # PIL would hold them: it begins with the width.
            image = image.resize((width, size), Image.BICUBIC)
        return np.asarray(image.resize((size, size), Image.BICUBIC))
    # Only what the crop shows is resized: enlarged as a whole, a thin image is immense.
    left, right = _centre(width, size / min(image.size), size)
    top, bottom = _centre(height, size / min(image.size), size)
    box = (left, top, right, bottom)
    return np.asarray(image.resize((size, size), Image.BICUBIC, box))


def _centre(side: int, scale: float, size: int) -> tuple[float, float]:
    """Where `size` pixels in the middle of a scaled side begin and end on the side."""
    scaled = max(size, round(side * scale))
    first = (scaled - size) // 2
    return first * side / scaled, (first + size) * side / scaled


@contextlib.contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """A file that PIL may decode; others wait while large ones are in the memory."""
    if not content:
        raise BadImage("the file is empty")
    try:
        with _open(content) as image:
            pixels = image.width * image.height
            if pixels > MAX_PIXELS:
                raise BadImage(
                    f"{image.width} x {image.height} pixels are more than "
                    f"{MAX_PIXELS // 10**6} megapixels"
                )
            with _in_flight.hold(pixels):
                yield image
    except BadImage:
        raise
    except UnidentifiedImageError as error:
        kinds = ", ".join(FORMATS)
        raise BadImage(f"cannot be decoded: it is none of {kinds}") from error
    except Exception as error:  # PIL's decoders raise many types.
        reason = str(error) or type(error).__name__
        raise BadImage(f"cannot be decoded: {reason}") from error


def _open(content: bytes) -> Image.Image:
    with warnings.catch_warnings():
        # PIL's own limit warns from 89 megapixels on; ours comes afterwards.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(content), formats=FORMATS)


class _Budget:
    """Lets threads in while what they hold together is not too much."""

    def __init__(self, total: int):
        self._free, self._changed = total, threading.Condition()

    @contextlib.contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """Wait for an amount, and give it back afterwards."""
        with self._changed:
            self._changed.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._changed.notify_all()


_in_flight = _Budget(_PIXELS_IN_FLIGHT)


def _rgb(opened: Image.Image, upright: bool = True) -> Image.Image:
    """The first frame as 8-bit RGB."""
    image = ImageOps.exif_transpose(opened) if upright else opened
    if image.mode.startswith("I;16"):
        gray = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((gray + 128) // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise BadImage(f"pixels of mode {image.mode}, whose range is unknown")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
