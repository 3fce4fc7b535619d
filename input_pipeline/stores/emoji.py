"""The embedded image set: 1,644 concepts, each drawn by two to five artists.

`emoji/emoji_core5.zip` holds 7,228 RGBA drawings of 64x64 pixels: five WebP sheets and
an index (`tools/build_emoji.py` makes it, NOTICE credits the artists). Two drawings of
one concept by different artists are a semantic pair in its purest form.

Rows: sheet after sheet, tile after tile. Label = concept. Attributes = category (9),
subcategory (96), artist (5), group: a concept and its gender and direction variants.

Background: each drawing is laid on a plain light colour, three independent bytes,
uniform from 160 to 255, taken from the bit stream PCG64(row). It depends on the row
only, so it is the same on every machine, and it tells nothing about concept or artist.
Light, because the artists drew for light pages: on dark colours outlines vanish.

Splits: whole groups, in an order fixed by a seed. `pretrain` has half of the groups,
`probe_train` and `probe_test` a quarter each, `heldout` is both of these.
"""

import hashlib
import io
import json
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from input_pipeline.stores.decode import fit
from input_pipeline.stores.image_source import Reader, Source, tell_apart

ARCHIVE = pathlib.Path(__file__).parents[1] / "emoji" / "emoji_core5.zip"
_DARKEST = 160  # Of a background's channels; published numbers rest on it too.
_SPLIT_SEED = 20220  # Never change: published numbers rest on the split.


def scan(argument: str = "") -> Source:
    """The drawings on their backgrounds."""
    content = ARCHIVE.read_bytes()
    key = f"{hashlib.sha256(content).hexdigest()} {_DARKEST} {_SPLIT_SEED}"

    def open_reader() -> Reader:
        tiles = read_tiles(content)
        return lambda row: composite(tiles[row], background(row))

    return Source(
        name="emoji",
        key=key,
        meta=lambda: _meta(read_index(content)),
        open_reader=open_reader,
        read_alpha=read_alpha,
    )


def read_index(content: bytes) -> dict[str, Any]:
    """The archive's index: tile, cols, licences, concepts and sheets."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return json.loads(archive.read("index.json"))


def read_tiles(content: bytes) -> np.ndarray:
    """All drawings in row order: uint8 [7228, 64, 64, 4], RGB with straight alpha."""
    index = read_index(content)
    side, columns = index["tile"], index["cols"]
    tiles = []
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for artist, concepts in index["sheets"].items():
            sheet = Image.open(io.BytesIO(archive.read(f"{artist}.webp")))
            pixels = np.asarray(sheet.convert("RGBA"))
            grid = pixels.reshape(-1, side, columns, side, 4).swapaxes(1, 2)
            tiles.append(grid.reshape(-1, side, side, 4)[: len(concepts)])
    return np.concatenate(tiles)


def background(row: int) -> np.ndarray:
    """The plain light colour behind a drawing: uint8 [3], each from 160 to 255.

    Raw bits, because NumPy promises the same ones in every version; it does not
    promise that of its distributions.
    """
    raw = int(np.random.PCG64(row).random_raw())
    uniform = np.frombuffer((raw >> 40).to_bytes(3, "big"), np.uint8).astype(np.uint32)
    return (_DARKEST + uniform * (256 - _DARKEST) // 256).astype(np.uint8)


def composite(rgba: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Lay drawings [..., 4] (uint8, straight alpha) on a colour: uint8 [..., 3]."""
    alpha = rgba[..., 3:].astype(np.uint32)
    mixed = rgba[..., :3] * alpha + colour * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)


def read_alpha(ids: Sequence[str], size: int) -> tuple[np.ndarray, np.ndarray]:
    """The alpha of drawings in prepared images, and the background; see `ReadAlpha`."""
    content = ARCHIVE.read_bytes()
    place = {id: row for row, id in enumerate(_meta(read_index(content))["ids"])}
    rows = [place[id] for id in ids]
    tiles = read_tiles(content)[rows, ..., 3]
    # The drawings are square: both ways to resize do the same to alpha as to the pixels.
    alpha = np.stack([fit(Image.fromarray(tile), size) for tile in tiles])
    return alpha, np.stack([background(row) for row in rows])


def _meta(index: dict[str, Any]) -> dict[str, Any]:
    """Ids, labels, attributes and splits, by row."""
    codes, names, subcategories, groups = zip(*index["concepts"], strict=True)
    categories = [name.split("/")[0] for name in subcategories]
    artists = list(index["sheets"])
    rows = [(a, c) for a, artist in enumerate(artists) for c in index["sheets"][artist]]
    concept = [c for _, c in rows]
    attributes, attribute_names = {}, {"artist": artists}
    known = {"category": categories, "subcategory": subcategories, "group": groups}
    for key, values in known.items():
        attribute_names[key] = sorted(set(values))
        number = {name: i for i, name in enumerate(attribute_names[key])}
        attributes[key] = [number[values[c]] for c in concept]
    attributes["artist"] = [a for a, _ in rows]
    return {
        "ids": [f"{artists[a]}/{codes[c]}" for a, c in rows],
        "labels": concept,
        "class_names": tell_apart([name.lower() for name in names], codes),
        "attributes": attributes,
        "attribute_names": attribute_names,
        "splits": _splits(np.asarray(attributes["group"])),
    }


def _splits(group: np.ndarray) -> dict[str, list[int]]:
    """Rows of each split; every group falls into exactly one quarter."""
    count = int(group.max()) + 1
    bits = np.random.PCG64(_SPLIT_SEED).random_raw(count)
    order = np.argsort(bits, kind="stable")
    quarter = np.empty(count, np.int64)
    quarter[order] = np.arange(count) * 4 // count
    parts = {
        "pretrain": (0, 1),
        "probe_train": (2,),
        "probe_test": (3,),
        "heldout": (2, 3),
    }
    return {
        name: np.flatnonzero(np.isin(quarter[group], which)).tolist()
        for name, which in parts.items()
    }
