"""One encoded image to pixels of a store: whatever the file holds, or a reason why not.

An image is turned as its EXIF orientation says, laid on white where it is transparent,
converted to 8-bit RGB (16-bit grayscale is scaled, CMYK and palettes are converted, of an
animation the first frame is taken) and resized, bicubic and antialiased:

* "crop": the shorter side becomes the store's image size, then the centre is cropped;
* "squash": both sides become the image size; nothing is lost, but shapes change.
"""

import io
import warnings
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

Resize = Literal["crop", "squash"]
RESIZES = ("crop", "squash")
# 100 megapixels are 300 MB when decoded. A few kilobytes can claim far more.
MAX_PIXELS = 100_000_000
# Raise it when the pixels that come out change: prepared images are made anew.
VERSION = 1


class BadImage(Exception):
    """An image that cannot be used; its text says why."""


def decode(content: bytes, size: int, resize: Resize = "crop") -> np.ndarray:
    """Decode an encoded image: uint8 [size, size, 3]; see the top of this file.

    Raises:
      BadImage: see `open_rgb`.
    """
    return fit(open_rgb(content), size, resize)


def open_rgb(content: bytes) -> Image.Image:
    """Decode an encoded image at its own size: upright, 8-bit RGB.

    Raises:
      BadImage: the file is empty, damaged, no image, too large, or has floating point or
        32-bit pixels, whose range is unknown.
    """
    if not content:
        raise BadImage("the file is empty")
    try:
        with warnings.catch_warnings():
            # PIL's own limit warns from 89 megapixels on; ours is checked below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise BadImage(
                        f"{opened.width} x {opened.height} pixels are more than "
                        f"{MAX_PIXELS // 10**6} megapixels"
                    )
                return _rgb(opened)
    except BadImage:
        raise
    except Exception as error:  # PIL's decoders raise many types.
        raise BadImage(f"cannot be decoded: {error}") from error


def fit(image: Image.Image, size: int, resize: Resize = "crop") -> np.ndarray:
    """Resize an RGB image to uint8 [size, size, 3]."""
    if resize == "squash":
        width = height = size
    else:
        scale = size / min(image.size)
        width, height = (max(size, round(side * scale)) for side in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


def _rgb(opened: Image.Image) -> Image.Image:
    """The first frame, upright, as 8-bit RGB."""
    image = ImageOps.exif_transpose(opened)
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
