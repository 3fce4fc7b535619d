"""One image, whatever the file holds: every row of the list of bad input."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from input_pipeline import decode
from input_pipeline.decode import BadImage
from input_pipeline.errors import UserError
from input_pipeline.store import open_store


def encode(image, kind="PNG", **options):
    """The bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def array(colour, size=(8, 8), mode="RGB"):
    return Image.new(mode, size, colour)


def test_crop_keeps_the_centre_and_squash_the_whole():
    # 40 x 20: red, green (middle 20 columns), blue. The crop sees the green only.
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :10, 0] = pixels[:, 10:30, 1] = pixels[:, 30:, 2] = 255
    for turned in (pixels, pixels.swapaxes(0, 1)):
        content = encode(Image.fromarray(turned))
        small = decode.decode(content, 10)
        assert small.shape == (10, 10, 3)
        # Bicubic overshoots at the two edges; the rest is plain.
        inner = small[2:-2, 2:-2].reshape(-1, 3)
        assert np.array_equal(inner, np.tile([0, 255, 0], (len(inner), 1)))
        whole = decode.decode(content, 10, "squash")
        corners = whole[0, 0].tolist(), whole[-1, -1].tolist()
        assert corners == ([255, 0, 0], [0, 0, 255])


@pytest.mark.parametrize("resize", decode.RESIZES)
def test_resize_is_antialiased(resize):
    # Stripes of one pixel must become gray, not stripes of another period.
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, ::2] = 255
    small = decode.decode(encode(Image.fromarray(pixels)), 16, resize)
    assert np.abs(small[:, 2:-2].astype(int) - 127).max() <= 3


def test_turned_photograph_is_upright():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255  # White on top ...
    exif = Image.Exif()
    exif[0x0112] = 3  # ... shown upside down.
    image = decode.decode(encode(Image.fromarray(pixels), exif=exif), 8)
    assert image[:4].max() == 0 and image[4:].min() == 255


def animation():
    frames = [array(colour) for colour in ((255, 0, 0), (0, 255, 0))]
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:])


def palette_with_a_transparent_colour():
    image = array(0, mode="P")
    image.putpalette([10, 20, 30])
    return encode(image, transparency=0)


@pytest.mark.parametrize(
    "content, colour, tolerance",
    [
        (encode(array(200, mode="L")), (200, 200, 200), 0),
        (encode(array(1, mode="1")), (255, 255, 255), 0),
        (encode(array((0, 255, 255, 0), mode="CMYK"), "JPEG"), (255, 0, 0), 3),
        (encode(array((10, 20, 30, 255), mode="RGBA")), (10, 20, 30), 0),
        (encode(array((10, 20, 30, 0), mode="RGBA")), (255, 255, 255), 0),
        (encode(array((0, 0), mode="LA")), (255, 255, 255), 0),
        (palette_with_a_transparent_colour(), (255, 255, 255), 0),
        (encode(array(257 * 90, mode="I;16")), (90, 90, 90), 0),
        (encode(array(65535, mode="I;16"), "TIFF"), (255, 255, 255), 0),
        (animation(), (255, 0, 0), 0),
        (encode(array((1, 2, 3), size=(1, 300))), (1, 2, 3), 0),
    ],
    ids=[
        *("grayscale", "bits", "CMYK", "opaque", "transparent", "gray-alpha"),
        *("palette", "16-bit", "16-bit-TIFF", "animation", "narrow"),
    ],
)
def test_every_kind_of_image_becomes_rgb(content, colour, tolerance):
    image = decode.decode(content, 8)
    assert image.shape == (8, 8, 3) and image.dtype == np.uint8
    assert np.abs(image.astype(int) - colour).max() <= tolerance


def bomb():
    """A PNG of a hundred bytes that claims a billion pixels."""

    def chunk(name, data):
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    parts = (
        chunk(b"IHDR", header),
        chunk(b"IDAT", zlib.compress(b"")),
        chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def huge():
    """Too large for us, and not for PIL."""
    return encode(Image.new("1", (11_000, 11_000)))


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
BAD = {
    "empty": (b"", "empty"),
    "truncated": (encode(Image.fromarray(NOISE), "JPEG")[:900], "cannot be decoded"),
    "no image": (b"<html>404</html>", "cannot be decoded"),
    "bomb": (bomb(), "pixels"),
    "huge": (huge(), "more than 100 megapixels"),
    "32-bit": (encode(array(70_000, mode="I"), "TIFF"), "range is unknown"),
    "float": (encode(array(0.5, mode="F"), "TIFF"), "range is unknown"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_used_has_a_reason(kind):
    content, reason = BAD[kind]
    with pytest.raises(BadImage, match=reason):
        decode.decode(content, 8)


@pytest.fixture
def folder(tmp_path):
    """Good images of two classes, and a bad one in the middle for each reason."""
    root = tmp_path / "pictures"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for i in range(4):
            array((i, 0, 0)).save(root / name / f"{i + 4}.png")
    for kind, (content, _) in BAD.items():
        (root / "cat" / f"5 {kind}.png").write_bytes(content)
    return root


def test_bad_images_are_left_out_and_listed(folder, tmp_path):
    name, data = f"folder:{folder}", tmp_path / "data"
    with pytest.raises(UserError, match=r"7 of 15 .*skipped.csv.*max_skipped=0.467"):
        open_store(name, image_size=8, data_dir=data)
    for _ in range(2):  # Prepared, then opened.
        store = open_store(name, image_size=8, data_dir=data, max_skipped=0.5)
        assert [i.split("/")[0] for i in store.ids] == ["cat"] * 4 + ["dog"] * 4
        assert store.labels.tolist() == [0] * 4 + [1] * 4
        assert store.read(np.arange(8))[:, 0, 0, 0].tolist() == [0, 1, 2, 3] * 2
    # What is prepared does not make a stricter call content.
    with pytest.raises(UserError, match="7 of 15"):
        open_store(name, image_size=8, data_dir=data)
    (listed,) = data.glob("*/skipped.csv")
    lines = listed.read_text().splitlines()
    assert lines[0] == "id,reason" and len(lines) == 1 + len(BAD)
    assert any(line.startswith("cat/5 empty.png,the file is empty") for line in lines)
    # Nothing was written elsewhere.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "pictures"]


def test_nothing_but_bad_images(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match="None of the 1 images"):
        open_store(
            f"folder:{tmp_path / 'pictures'}",
            image_size=8,
            data_dir=tmp_path / "data",
            max_skipped=1.0,
        )
