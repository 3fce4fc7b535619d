"""Turn an encoded image into pixels of a store, or into a reason why it cannot be used.

An image is turned as its EXIF orientation says, put on white where it is transparent,
converted to 8-bit RGB (12- and 16-bit grayscale is scaled, CMYK and palettes are converted,
the first frame of an animation is taken) and resized, bicubic and antialiased:

* "crop": the shorter side becomes the store's image size, then the centre is cropped;
* "squash": both sides become the image size; nothing is lost, but shapes change.

Or it is kept whole as a JPEG file, no larger than needed (`encode`).

Only the pixels decide whether an image can be used: not its text, its colour profile or other
data of its camera.
"""

import contextlib
import functools
import io
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from sp_jax.extras import install

Resize = Literal["crop", "squash"]
RESIZES = ("crop", "squash")
# The formats of `image_files.SUFFIXES`. PIL looks at the content, and may start programs for
# other formats, such as Ghostscript for EPS.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
NEEDS_HEIC = f"it is HEIC: {install('heic')}"
# How HEIC begins; AVIF may begin as the last two.
_HEIC = re.compile(rb"....ftyp(hei[cxms]|hev[cmxs]|mif1|msf1)", re.DOTALL)
_PNG = b"\x89PNG\r\n\x1a\n"
# A few kilobytes can claim far more.
MAX_PIXELS = 100_000_000
# Of all images that are being decoded. A pixel takes up to 20 bytes on the way: 4 GB.
_PIXELS_IN_FLIGHT = 200_000_000
_JPEG_SIDE = 65_500  # The longest that libjpeg writes.
# Raise it when the resulting pixels, or the images that are found, change: then prepared
# images are made again.
VERSION = 3
# How an image must be turned that has this EXIF orientation.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImage(Exception):
    """An image that cannot be used; its text says why."""


def decode(content: bytes, size: int, resize: Resize = "crop") -> np.ndarray:
    """Decode an encoded image: uint8 [size, size, 3]; errors are those of `open_rgb`."""
    return decode_as(content, functools.partial(fit, size=size, resize=resize))


def decode_as(
    content: bytes, convert: Callable[[Image.Image], np.ndarray]
) -> np.ndarray:
    """Decode an image to upright RGB, and convert it; errors are those of `open_rgb`."""
    with _opened(content) as image:
        return convert(_rgb(image))


def open_rgb(content: bytes, upright: bool = True) -> Image.Image:
    """Decode an encoded image at its own size, as 8-bit RGB; `upright` follows its EXIF.

    Raises:
      BadImage: the file is empty, damaged, not an image, too large, or has floating-point or
        32-bit pixels, whose range is unknown.
    """
    with _opened(content) as image:
        return _rgb(image, upright)


def fit(image: Image.Image, size: int, resize: Resize = "crop") -> np.ndarray:
    """Resize an RGB image to uint8 [size, size, 3]."""
    width, height = image.size
    if resize == "squash":
        if size * height > MAX_PIXELS:  # PIL would store them: it starts with the width
            image = image.resize((width, size), Image.BICUBIC)
        return np.asarray(image.resize((size, size), Image.BICUBIC))
    # Only the crop is resized: a thin image, enlarged as a whole, would be immense.
    left, right = _centre(width, size / min(image.size), size)
    top, bottom = _centre(height, size / min(image.size), size)
    box = (left, top, right, bottom)
    return np.asarray(image.resize((size, size), Image.BICUBIC, box))


def encode(image: Image.Image, shorter_side: int, quality: int) -> np.ndarray:
    """An RGB image as a JPEG file, uint8 [bytes]; with a limit in pixels for its shorter side.

    Raises:
      BadImage: it is too long for a JPEG.
    """
    if (scale := shorter_side / min(image.size)) < 1:
        width, height = (round(side * scale) for side in image.size)
        image = image.resize((width, height), Image.BICUBIC)
    if (longer := max(image.size)) > _JPEG_SIDE:
        raise BadImage(f"its longer side, {longer} pixels, is too long for a JPEG")
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, comment="")
    return np.frombuffer(file.getvalue(), np.uint8)


def _centre(side: int, scale: float, size: int) -> tuple[float, float]:
    """Begin and end, on the original side, of the middle `size` pixels of the scaled side."""
    scaled = max(size, round(side * scale))
    first = (scaled - size) // 2
    return first * side / scaled, (first + size) * side / scaled


@contextlib.contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """A file decoded by PIL; other threads wait while large images are in memory."""
    if not content:
        raise BadImage("the file is empty")
    try:
        image = _open(content)
        pixels = image.width * image.height
        if pixels > MAX_PIXELS:
            raise BadImage(
                f"{image.width} x {image.height} pixels are more than "
                f"{MAX_PIXELS // 10**6} megapixels"
            )
        with _in_flight.hold(pixels), _loaded(image, content) as image:
            yield image
    except (BadImage, MemoryError):
        raise
    except UnidentifiedImageError as error:
        if (bands := _bands(content)) > 4:
            raise BadImage(
                f"it has {bands} bands, which are not just colours: write three of them as RGB"
            ) from error
        kinds = f"{', '.join(FORMATS)}, or an unusual kind of these"
        raise BadImage(f"cannot be decoded: it is not one of {kinds}") from error
    except Exception as error:  # PIL's decoders raise many types.
        reason = str(error) or type(error).__name__
        raise BadImage(f"cannot be decoded: {reason}") from error


def _open(content: bytes) -> Image.Image:
    with warnings.catch_warnings():
        # PIL's own limit warns from 89 megapixels on; ours comes afterwards.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            return Image.open(io.BytesIO(content), formats=FORMATS)
        except (UnidentifiedImageError, ValueError):
            if _HEIC.match(content):
                return _open_heic(content)
            if not content.startswith(_PNG):
                raise
            return Image.open(io.BytesIO(_only_pixels(content)), formats=FORMATS)


def _open_heic(content: bytes) -> Image.Image:
    """A phone's image; it is upright then."""
    try:
        import pillow_heif  # An extra.
    except ImportError:
        raise BadImage(NEEDS_HEIC) from None
    pillow_heif.register_heif_opener()
    return Image.open(io.BytesIO(content), formats=("HEIF",))


def _bands(content: bytes) -> int:
    """The numbers per pixel of a TIFF; 0 for other files, and if they are unknown."""
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(content[:8])
        file = io.BytesIO(content)
        file.seek(tags.next)
        tags.load(file)
        return tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 0)
    except Exception:  # PIL's reader raises many types.
        return 0


def _loaded(image: Image.Image, content: bytes) -> Image.Image:
    """The image with its pixels in memory."""
    _note_depth(image)
    try:
        image.load()
    except (OSError, SyntaxError, ValueError):
        if image.format != "PNG":
            raise
        image = _open(_only_pixels(content))
        _note_depth(image)
        image.load()
    return image


def _only_pixels(content: bytes) -> bytes:
    """A PNG without the data besides its pixels, such as megabytes of text."""
    kept, place = [_PNG], len(_PNG)
    while place + 8 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        name, end = content[place + 4 : place + 8], place + 12 + length
        # Names of chunks that the pixels need begin with a capital letter.
        if name[:1].isupper() or name in (b"tRNS", b"eXIf"):
            kept.append(content[place:end])
        place = end
    return b"".join(kept)


def _note_depth(image: Image.Image) -> None:
    """Scale the transparent value of a PNG to the pixels' range: PIL leaves it unscaled."""
    value = image.info.get("transparency")
    if image.format != "PNG" or not image.tile or isinstance(value, bytes | None):
        return
    raw = image.tile[0].args
    if raw in ("L;2", "L;4"):  # 2 or 4 bits, which are scaled to 8.
        image.info["transparency"] = value * (85 if raw == "L;2" else 17)
    elif raw == "RGB;16B":  # Of 16 bits the upper 8 are read.
        image.info["transparency"] = tuple(part >> 8 for part in value)


class Budget:
    """Lets threads in while their amounts do not exceed a total."""

    def __init__(self, total: int):
        self._total = self._free = total
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """Wait for an amount, or for all if it is more, and give it back afterwards."""
        amount = min(amount, self._total)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._changed.notify_all()


_in_flight = Budget(_PIXELS_IN_FLIGHT)


def _rgb(opened: Image.Image, upright: bool = True) -> Image.Image:
    """The first frame as 8-bit RGB."""
    image = _deep_gray(opened)
    if image.mode in ("I", "F"):
        raise BadImage(f"pixels of mode {image.mode}, whose range is unknown")
    turn = _TURNS.get(_orientation(opened)) if upright else None
    if turn is not None:
        image = image.transpose(turn)
    if image.has_transparency_data:
        # La has no direct way.
        image = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """The orientation in EXIF or XMP; 1, upright, if they are damaged."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # PIL's reader raises many types.
        return 1


def _deep_gray(image: Image.Image) -> Image.Image:
    """Gray of 12 or 16 bits as 8 bits; other images unchanged."""
    tags = getattr(image, "tag_v2", {})
    signed = 2 in tags.get(TiffImagePlugin.SAMPLEFORMAT, ())
    if signed and image.mode == "L":
        raise BadImage("signed 8-bit pixels, whose range is unknown")
    if not image.mode.startswith("I;16"):
        return image
    gray = np.asarray(image).astype(np.uint32)
    transparent = gray == image.info.get("transparency", -1)
    most = 2 ** tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0] - 1
    gray = (gray * 255 + most // 2) // most
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:  # Zero is white.
        gray = 255 - gray
    gray = np.where(transparent, 255, gray)  # Transparent is white.
    return Image.fromarray(gray.astype(np.uint8))
