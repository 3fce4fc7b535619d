"""Summarise a pair table in numbers and as a picture."""

import json
import pathlib
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from input_pipeline.pairs.table import PairTable, check_table, save_table
from input_pipeline.stores import ImageStore
from sp_jax import progress
from sp_jax.errors import UserError
from sp_jax.files import check_writable

_CHUNK = 4096  # Pairs that are read at a time.
_IMAGES = 256  # Images whose contrast is measured at a time.
_THUMBNAIL = 16
_SHOWN, _COLUMNS = 80, 4  # Pairs on a contact sheet, and in a line of it.
_TEXT = 15  # Height of letters in pixels, to be readable on a small screen, too.
# Standard deviations in levels of 255: an image with less is blank, up to the noise of a
# scanner; a thumbnail with less holds rounding, and its correlation means nothing.
_BLANK, _ROUNDING = 3.0, 0.1
# Two thumbnails that correlate by more than this count as one picture; see docs/data.md.
NEAR = 0.95


def summarize(table: PairTable, store: ImageStore) -> dict[str, Any]:
    """Count what can go wrong with pairs; UserError if the table is of another store.

    Returns:
      pairs: P.
      augmentation_pairs: those of an image with itself.
      classes: number of labels.
      pairs_a_class: the smallest and the largest number.
      images: different images in the table.
      images_used_again: those in more than one pair.
      blank_images: those without contrast, see `blank`.
      duplicate_images: those with the same pixels as another image of the table.
      identical_pairs: semantic pairs of two images with the same pixels.
      near_duplicate_pairs: semantic pairs, not identical, see `near_duplicates`.
      repeated_pairs: pairs that the table has before, in either order.
      pairs_across_classes: those whose label and images' labels are not all the same.
    """
    check_table(table, store)
    semantic = table.first != table.second
    used, times = np.unique(
        np.concatenate([table.first, table.second[semantic]]), return_counts=True
    )
    _, content, copies = np.unique(
        store.digests[used], axis=0, return_inverse=True, return_counts=True
    )
    same = _identical(store, table.first, table.second)
    near = near_duplicates(store, table.first, table.second)
    classes, counts = np.unique(table.label, return_counts=True)
    both = np.stack([table.first, table.second], axis=1)
    labels = np.stack([store.labels[table.first], store.labels[table.second]])
    return {
        "pairs": len(table),
        "augmentation_pairs": int((~semantic).sum()),
        "classes": len(classes),
        "pairs_a_class": [int(counts.min()), int(counts.max())],
        "images": len(used),
        "images_used_again": int((times > 1).sum()),
        "blank_images": int(blank(store, used).sum()),
        "duplicate_images": int((copies[content.reshape(-1)] > 1).sum()),
        "identical_pairs": int((same & semantic).sum()),
        "near_duplicate_pairs": int((near & semantic & ~same).sum()),
        "repeated_pairs": len(table) - len(np.unique(np.sort(both, axis=1), axis=0)),
        "pairs_across_classes": int((labels != table.label).any(0).sum()),
    }


def blank(store: ImageStore, rows: np.ndarray) -> np.ndarray:
    """Which images have no contrast, bool [n]: pairs of such images teach nothing.

    Every channel has a standard deviation below 3 of 255 levels.
    """
    parts = np.array_split(rows, len(rows) // _IMAGES + 1)
    parts = map(store.read, progress.track(parts, "looking for blank images", "blocks"))
    contrast = [x.std((1, 2), dtype=np.float32).max(axis=1) for x in parts]
    return np.concatenate(contrast) < _BLANK


def near_duplicates(
    store: ImageStore, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """Which pairs of rows show the same picture, bool [P].

    Their pixels are the same, or their 16 x 16 gray thumbnails correlate by more than `NEAR`.
    """
    alike = similarity(store, first, second) > NEAR
    return alike | _identical(store, first, second)


def _identical(store: ImageStore, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (store.digests[first] == store.digests[second]).all(axis=1)


def similarity(store: ImageStore, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Correlation of the gray thumbnails of pairs of rows: float32 [P], from -1 to 1.

    NaN where a thumbnail has no contrast: its correlation is undefined.
    """
    found = []
    blocks = np.array_split(np.stack([first, second]), len(first) // _CHUNK + 1, 1)
    for pairs in progress.track(blocks, "looking for near-duplicates", "blocks"):
        a, b = (_thumbnails(store.read(rows)) for rows in pairs)
        found.append((a * b).sum(1))
    return np.concatenate(found)


def _thumbnails(images: np.ndarray) -> np.ndarray:
    """Gray thumbnails of mean 0 and norm 1: float32 [n, up to 256]; NaN without contrast."""
    size = images.shape[1]
    side = min(size, _THUMBNAIL)
    gray = images.mean(-1, dtype=np.float32)
    edges = np.linspace(0, size, side + 1).astype(int)
    small = np.add.reduceat(np.add.reduceat(gray, edges[:-1], 1), edges[:-1], 2)
    small /= np.outer(np.diff(edges), np.diff(edges))  # Not every block is as large.
    small = small.reshape(len(images), -1)
    small = small - small.mean(1, keepdims=True)
    norm = np.linalg.norm(small, axis=1, keepdims=True)
    return small / np.where(norm < _ROUNDING * side, np.nan, norm)


def two_classes(table: PairTable, store: ImageStore) -> np.ndarray:
    """Which pairs have images of two classes, bool [P]; unlabelled images have none."""
    first, second = store.labels[table.first], store.labels[table.second]
    return (first != second) & (first >= 0) & (second >= 0)


def contact_sheet(table: PairTable, store: ImageStore) -> Image.Image:
    """Draw pairs from all parts of the table, with the names of their classes.

    Pairs with images of two classes have a red frame, and both names.
    """
    count = min(_SHOWN, len(table))
    chosen = np.linspace(0, len(table) - 1, count).astype(int)
    size = store.images.shape[1]
    side, text, gap = size * max(1, round(96 / size)), _TEXT + 8, 10
    width, height = 2 * side + gap, side + text + gap
    columns = min(_COLUMNS, max(2, count))  # Room for the caption.
    lines = -(-count // _COLUMNS)
    whole = (columns * width + gap, text + gap + lines * height)
    sheet = Image.new("RGB", whole, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT)
    across = two_classes(table, store)
    caption = f"{count} of {len(table):,} pairs"
    if across.any():
        caption += f"; red: two classes ({across.sum():,} in the table)"
    draw.text((gap, gap // 2), caption, "black", font)
    for place, row in enumerate(chosen):
        x, y = gap + place % _COLUMNS * width, text + gap + place // _COLUMNS * height
        both = table.first[row], table.second[row]
        name, color = store.class_name(table.label[row]), "black"
        if across[row]:
            name = " / ".join(store.class_name(store.labels[image]) for image in both)
            color = "red"
            frame = (x - 4, y + text - 4, x + 2 * side + 3, y + text + side + 3)
            draw.rectangle(frame, outline=color, width=3)
        name = " ".join(name.split())  # on one line
        while name and draw.textlength(name, font) > 2 * side:
            name = name[:-1]
        draw.text((x, y), name, color, font)
        for i, image in enumerate(store.read(both)):
            tile = Image.fromarray(image).resize((side, side), Image.NEAREST)
            sheet.paste(tile, (x + i * side, y + text))
    return sheet


def csv_path(text: str) -> pathlib.Path:
    """Check the path of a table that will be written, before work starts.

    Raises:
      UserError: it is no .csv file in a folder, or the record of a run.
      OSError: the folder cannot be written.
    """
    path = pathlib.Path(text).expanduser()
    if path.suffix != ".csv" or not path.parent.is_dir():
        raise UserError(f"--out={text} must name a .csv file in a folder that exists.")
    if path.name == "pairs.csv" and (path.parent / "config.json").is_file():
        raise UserError(
            f"--out={text} would replace the record of the run in {path.parent}: choose "
            "another name."
        )
    check_writable(path.parent)
    return path


def check_place(out: pathlib.Path, store: ImageStore) -> None:
    """Refuse a folder in which the pictures beside a table would be images of the store.

    Raises:
      UserError: `out` lies in the folder of the store.
    """
    kind = store.name.partition(":")[0]
    if kind not in ("folder", "images") or store.name.endswith(".txt"):
        return
    if store.root and out.resolve().is_relative_to(store.root.resolve()):
        raise UserError(
            f"--out={out} is in the folder of the images, {store.root}, and the pictures "
            "beside it would be images of the store: choose another folder."
        )


def write_table(
    out: pathlib.Path,
    table: PairTable,
    store: ImageStore,
    score: np.ndarray | None = None,
    **more: Any,
) -> None:
    """Write a table, its numbers and a picture of some pairs; print the numbers.

    Arguments are those of `save_table`, and numbers to add to those of `summarize`.
    """
    save_table(out, table, store, score)
    contact_sheet(table, store).save(out.with_suffix(".png"))
    numbers = {"source": table.source} | summarize(table, store) | more
    for name, value in numbers.items():
        print(f"{name.replace('_', ' ')}: {_words(value)}")
    text = json.dumps(numbers, indent=1) + "\n"
    out.with_suffix(".json").write_text(text, encoding="utf-8")
    print(f"written to {out}; {out.with_suffix('.png')} shows some of the pairs")


def _words(value: Any) -> str:
    """A number with four digits; the smallest and the largest as a range."""
    if isinstance(value, list):
        return " to ".join(map(_words, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
