"""Decoding one image, for every kind of bad file."""

import concurrent.futures
import errno
import io
import os
import struct
import time
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from input_pipeline.stores import (
    decode,
    image_files,
    open_source,
    open_store,
    preparing,
)
from input_pipeline.stores.decode import BadImage
from input_pipeline.stores.image_files import SUFFIXES
from sp_jax.errors import UserError

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


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


def jpeg_with_exif(*tags, extra=b""):
    """A JPEG that is red at the left and blue at the right before it is turned."""
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:, :20, 0] = pixels[:, 20:, 2] = 255
    plain = encode(Image.fromarray(pixels), "JPEG", quality=95)
    body = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(tags))
    body += b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4) + extra
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + plain[2:]


TURNED = (274, 3, 1, 6)  # Clockwise by 90 degrees.
RESOLUTION = (282, 10, 1, 8 + 2 + 2 * 12 + 4)  # A fraction with a sign, behind them.


@pytest.mark.parametrize(
    "content",
    [
        jpeg_with_exif(TURNED),
        # PIL reads these values and cannot write them.
        jpeg_with_exif(TURNED, RESOLUTION, extra=struct.pack("<ii", -72, 1)),
        jpeg_with_exif(TURNED, RESOLUTION, extra=struct.pack("<ii", -1, 0)),
        jpeg_with_exif(TURNED, (0xA000, 4, 1, 2**32 - 1)),
    ],
)
def test_other_values_of_a_camera_do_not_matter(content):
    image = decode.decode(content, 40)
    assert image[5, 20, 0] > 200 > image[5, 20, 2]
    assert image[35, 20, 2] > 200 > image[35, 20, 0]


@pytest.mark.filterwarnings("ignore:Tag data larger:UserWarning")
def test_damaged_exif_does_not_matter():
    content = jpeg_with_exif((274, 7, 2**31, 9), (306, 2, 500, 9999))
    assert decode.decode(content, 40)[20, 5, 0] > 200


def png_with_text(after=False, **options):
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "x" * 2_000_000, **options)
    text.chunks = [(*chunk[:2], after) for chunk in text.chunks]
    return encode(array((9, 90, 9)), pnginfo=text)


def test_what_stands_beside_the_pixels_of_a_png_does_not_matter():
    damaged = bytearray(png_with_text())
    damaged[damaged.index(b"xxx")] ^= 1
    for content in (
        png_with_text(zip=True),
        png_with_text(zip=True, after=True),
        encode(array((9, 90, 9)), icc_profile=bytes(2_000_000)),
        bytes(damaged),
    ):
        assert np.array_equal(decode.decode(content, 4), np.full((4, 4, 3), (9, 90, 9)))


def animation(kind):
    frames = [array(colour) for colour in ((255, 0, 0), (0, 255, 0))]
    more = {"lossless": True} if kind == "WEBP" else {}
    return encode(frames[0], kind, save_all=True, append_images=frames[1:], **more)


def png(width, height, depth, rows, colour=2, transparent=None):
    """A PNG that PIL could not write: RGB, or gray with colour=0."""

    def chunk(name, data):
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    if transparent is not None:
        values = struct.pack(f">{len(transparent)}H", *transparent)
        parts.insert(1, (b"tRNS", values))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def tiff(bits, data, *more, zero_is_white=False, samples=1):
    """A gray TIFF of 8 x 8 pixels that PIL could not write."""
    tags = [
        *((256, 3, 8), (257, 3, 8), (258, 3, bits), (259, 3, 1)),
        *((262, 3, 0 if zero_is_white else 1), (273, 4, 8), (277, 3, samples)),
        *((278, 3, 8), (279, 4, len(data)), *more),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, n) for tag, kind, n in tags)
    count, place = struct.pack("<H", len(tags)), struct.pack("<I", 8 + len(data))
    return b"II*\0" + place + data + count + entries + bytes(4)


# A row begins with the number of its filter.
DEEP = png(8, 8, 16, 8 * (b"\0" + 8 * struct.pack(">HHH", 257 * 90, 0, 65535)))


GRAY = 8 * (b"\0" + 8 * struct.pack(">H", 257 * 90))
TWELVE = int(64 * f"{16 * 90:012b}", 2).to_bytes(96, "big")


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
        (DEEP, (90, 0, 255), 0),
        (encode(array((10, 20, 200)), "AVIF"), (10, 20, 200), 3),
        (tiff(16, 64 * b"\xc8\xc8", zero_is_white=True), (55, 55, 55), 0),
        (tiff(8, 64 * b"\xc8", zero_is_white=True), (55, 55, 55), 0),
        (tiff(12, TWELVE), (90, 90, 90), 0),
        (png(8, 8, 16, GRAY, 0, (257 * 90,)), (255, 255, 255), 0),
        (png(8, 8, 16, GRAY, 0, (257 * 90 + 1,)), (90, 90, 90), 0),
        (png(8, 8, 4, 8 * b"\0\x33\x33\x33\x33", 0, (3,)), (255, 255, 255), 0),
        (png(8, 8, 4, 8 * b"\0\x33\x33\x33\x33", 0, (4,)), (51, 51, 51), 0),
        (png(8, 8, 16, 8 * (b"\0" + 24 * b"\1\2"), 2, 3 * (258,)), (255,) * 3, 0),
        *((animation(kind), (255, 0, 0), 0) for kind in ("GIF", "PNG", "WEBP")),
        (encode(array((1, 2, 3), size=(1, 300))), (1, 2, 3), 0),
    ],
    ids=[
        *("grayscale", "bits", "CMYK", "opaque", "transparent", "gray-alpha"),
        *("palette", "16-bit", "16-bit-TIFF", "16-bit-RGB", "AVIF"),
        *("zero-is-white-16-bit", "zero-is-white", "12-bit"),
        *("transparent-16-bit", "opaque-16-bit", "transparent-4-bit", "opaque-4-bit"),
        "transparent-16-bit-RGB",
        *("GIF-animation", "PNG-animation", "WebP-animation", "narrow"),
    ],
)
def test_every_kind_of_image_becomes_rgb(content, colour, tolerance):
    image = decode.decode(content, 8)
    assert image.shape == (8, 8, 3) and image.dtype == np.uint8
    assert np.abs(image.astype(int) - colour).max() <= tolerance


@pytest.mark.parametrize("resize", decode.RESIZES)
@pytest.mark.parametrize("sides", [(1, 2_000_000), (2_000_000, 1)])
def test_thin_image_takes_little_memory(sides, resize):
    """Enlarged before the crop, it would have a terabyte."""
    image = decode.decode(encode(array((1, 2, 3), sides)), 64, resize)
    assert np.array_equal(image, np.full((64, 64, 3), (1, 2, 3)))


@pytest.mark.parametrize("sides", [(50, 37), (37, 50), (21, 8), (9, 9), (8, 11)])
def test_crop_is_that_of_the_whole_resized_image(sides):
    image = Image.fromarray(NOISE[: sides[1], : sides[0]])
    width, height = (round(side * 8 / min(sides)) for side in sides)
    left, top = (width - 8) // 2, (height - 8) // 2
    whole = image.resize((width, height), Image.BICUBIC)
    want = np.asarray(whole.crop((left, top, left + 8, top + 8)))
    found = decode.decode(encode(image), 8)
    assert np.abs(want.astype(int) - found).max() <= (8 not in sides)


def test_large_images_wait_for_each_other(monkeypatch):
    """Two of three fit into the memory; small ones are let in."""
    monkeypatch.setattr(decode, "_in_flight", decode.Budget(130))
    inside, most, convert = [], [], decode._rgb

    def slow(image):
        inside.append(id(image))  # to compare images would decode them
        most.append(len(inside))
        time.sleep(0.02)
        inside.remove(id(image))
        return convert(image)

    monkeypatch.setattr(decode, "_rgb", slow)
    content = encode(array((1, 2, 3)))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(decode.decode, [content] * 16, [8] * 16))
    assert max(most) == 2


def test_other_formats_are_not_tried():
    """For EPS, PIL would start Ghostscript."""
    known = {Image.registered_extensions()[suffix] for suffix in SUFFIXES}
    assert known == set(decode.FORMATS)
    for kind in ("EPS", "PPM"):
        with pytest.raises(BadImage, match="it is not one of JPEG, PNG"):
            decode.decode(encode(array((1, 2, 3)), kind), 8)


def bomb():
    """A PNG of a hundred bytes that claims a billion pixels."""
    return png(30_000, 30_000, 8, b"")


def huge():
    """Too large for us, and not for PIL."""
    return encode(Image.new("1", (11_000, 11_000)))


BAD = {
    "empty": (b"", "empty"),
    "truncated": (encode(Image.fromarray(NOISE), "JPEG")[:900], "cannot be decoded"),
    "no image": (b"<html>404</html>", "cannot be decoded"),
    "bomb": (bomb(), "pixels"),
    "huge": (huge(), "more than 100 megapixels"),
    "32-bit": (encode(array(70_000, mode="I"), "TIFF"), "range is unknown"),
    "8 bits with a sign": (tiff(8, bytes(64), (339, 3, 2)), "range is unknown"),
    "bands": (tiff(8, bytes(64), samples=8), "8 bands, which are not just colours"),
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
    with pytest.raises(UserError, match=r"9 of 17 .*skipped.csv.*max_skipped=0.53"):
        open_store(name, image_size=8, data_dir=data)
    for _ in range(2):  # Prepared, then opened.
        store = open_store(name, image_size=8, data_dir=data, max_skipped=0.53)
        assert [i.split("/")[0] for i in store.ids] == ["cat"] * 4 + ["dog"] * 4
        assert store.labels.tolist() == [0] * 4 + [1] * 4
        assert store.read(np.arange(8))[:, 0, 0, 0].tolist() == [0, 1, 2, 3] * 2
    # What is prepared does not make a stricter call content.
    with pytest.raises(UserError, match="9 of 17"):
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


def skipped(name, data):
    """Open a store of which some images are bad; the ids and reasons of these."""
    store = open_store(name, image_size=8, data_dir=data, max_skipped=0.9)
    assert store.ids == ("a/good.png",)
    (listed,) = data.glob("*/skipped.csv")
    text = os.fsdecode(listed.read_bytes())
    return dict(line.split(",", 1) for line in text.splitlines()[1:])


def test_damaged_members_of_an_archive_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "_MAX_BYTES", 1000)
    path, content = tmp_path / "pets.zip", encode(array((1, 2, 3)))
    names = ("checksum", "deflate", "encrypted", "good", "method", "short")
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(f"pets/a/{name}.png", content)
        archive.writestr("pets/a/large.png", bytes(1001))
        places = {name: archive.getinfo(f"pets/a/{name}.png") for name in names}
        begin = archive.start_dir
    packed = bytearray(path.read_bytes())
    for name, (offset, value) in {
        "encrypted": (8, 1),
        "method": (10, 99),
        "deflate": (10, zipfile.ZIP_DEFLATED),
        "short": (24, len(content) - 1),
    }.items():
        entry = packed.index(f"pets/a/{name}.png".encode(), begin) - 46
        packed[entry + offset] = value  # In the directory at the end ...
        if name != "short":  # ... and before the member.
            packed[places[name].header_offset + offset - 2] = value
    packed[packed.index(b"IDAT", places["checksum"].header_offset)] ^= 1
    path.write_bytes(packed)
    reasons = skipped(f"folder:{path}", tmp_path / "data")
    wanted = {
        "checksum": "Bad CRC-32",
        "deflate": "decompressing data",
        "encrypted": "encrypted, password required",
        "large": "1001 bytes are more than 1000",
        "method": "compression method is not supported",
        "short": "Bad CRC-32",
    }
    assert sorted(reasons) == [f"a/{name}.png" for name in sorted(wanted)]
    for name, reason in wanted.items():
        assert reason in reasons[f"a/{name}.png"]
        assert "cannot be read" in reasons[f"a/{name}.png"]


def test_large_files_wait_and_leave_nothing_behind(tmp_path, monkeypatch):
    """Two of the files fit into the memory; a reason does not keep its file."""
    root = tmp_path / "pictures"
    root.mkdir()
    for i in range(12):
        (root / f"{i:02d}.png").write_bytes(bytes(100_000))
    inside, most, opened = [], [], decode._open

    def slow(content):
        inside.append(content)
        most.append(len(inside))
        time.sleep(0.01)
        inside.pop()
        return opened(content)

    monkeypatch.setattr(decode, "_open", slow)
    monkeypatch.setattr(preparing, "_bytes_in_flight", decode.Budget(250_000))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    source = open_source(f"folder:{root}")
    found = list(preparing.decode_rows(source, 12, decode.fit, 1))
    assert all("it is not one of" in str(bad) for bad in found) and max(most) == 2
    assert all(bad.__traceback__ is None for bad in found)
    assert all(bad.__context__ is None for bad in found)


@pytest.mark.parametrize(
    "error, wanted, said",
    [
        (OSError(errno.EMFILE, "Too many open files"), OSError, "open files"),
        (MemoryError(), UserError, "not enough memory.*ulimit -v"),
    ],
)
def test_limits_of_the_system_are_no_fault_of_an_image(one, error, wanted, said):
    def read(row):
        raise error

    source = open_source(f"folder:{one}")._replace(open_reader=lambda: read)
    with pytest.raises(wanted, match=said):
        list(preparing.decode_rows(source, 1, decode.fit, 1))


@pytest.fixture
def one(tmp_path):
    """A folder with a good image."""
    folder = tmp_path / "pictures" / "a"
    folder.mkdir(parents=True)
    array((1, 2, 3)).save(folder / "good.png")
    return folder


def test_large_file_of_a_name_that_is_not_utf8(one, tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "_MAX_BYTES", 1000)
    name = os.fsdecode(b"raw\xff.png")  # Linux allows such names.
    (one / name).write_bytes(bytes(1001))
    reason = "cannot be read: 1001 bytes are more than 1000"
    found = skipped(f"folder:{one.parent}", tmp_path / "data")
    assert found == {f"a/{name}": reason}


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_file_without_permission(one, tmp_path):
    (one / "secret.png").touch(mode=0)
    found = skipped(f"folder:{one.parent}", tmp_path / "data")
    assert "Permission denied" in found["a/secret.png"]
