"""Pair tables: which two images of a store make a positive pair.

A table is data, not code: it can be saved as a CSV file, looked at, curated by hand
and loaded again. `second == first` is an augmentation pair (two views of one image).
"""

import csv
import dataclasses
import hashlib
import io
import os
import pathlib

import numpy as np

from input_pipeline.errors import UserError
from input_pipeline.store import ImageStore

_COLUMNS = ("first", "second", "label")
_HEADER = ("store", "split", "fingerprint", "source")


@dataclasses.dataclass(frozen=True, eq=False)
class PairTable:
    """Positive pairs of images.

    Attributes:
      first: int32 [P], rows of the store.
      second: int32 [P], rows of the store.
      label: int32 [P], class id of the pair; -1: none.
      store: name of the store that the rows point into.
      split: its split.
      fingerprint: its fingerprint.
      source: how the table was made, in words.

    Raises:
      UserError: the columns differ in length, are empty, or hold negative rows.
    """

    first: np.ndarray
    second: np.ndarray
    label: np.ndarray
    store: str
    split: str
    fingerprint: str
    source: str

    def __post_init__(self) -> None:
        """Check the columns and make them int32, read-only."""
        for name in _COLUMNS:
            given = np.asarray(getattr(self, name))
            if given.ndim != 1 or given.dtype.kind not in "iu":
                raise UserError(
                    f"Column {name!r} of a pair table must be one-dimensional whole "
                    f"numbers, not {given.dtype} {list(given.shape)}."
                )
            column = given.astype(np.int32)  # A copy: safe to freeze.
            column.setflags(write=False)
            object.__setattr__(self, name, column)
        lengths = {name: len(getattr(self, name)) for name in _COLUMNS}
        if len(set(lengths.values())) > 1:
            raise UserError(f"The columns of a pair table differ in length: {lengths}.")
        if not len(self.first):
            raise UserError(f"The pair table ({self.source}) holds no pairs.")
        if min(self.first.min(), self.second.min()) < 0:
            raise UserError("A pair table must not hold negative image indices.")

    def __len__(self) -> int:
        """The number of pairs P."""
        return len(self.first)

    @property
    def digest(self) -> str:
        """SHA-256 hex over the pairs and the fingerprint of their store."""
        whole = hashlib.sha256(self.fingerprint.encode())
        for name in _COLUMNS:
            whole.update(getattr(self, name).astype("<i4").tobytes())
        return whole.hexdigest()


def check_table(table: PairTable, store: ImageStore) -> None:
    """Raise UserError unless the table was made for this very store."""
    if table.fingerprint != store.fingerprint:
        raise UserError(
            f"The pair table was made for store {table.store!r}, split "
            f"{table.split!r} (fingerprint {table.fingerprint[:12]}), not for "
            f"{store.name!r}, split {store.split!r} ({store.fingerprint[:12]}): open "
            "that store, or make a new table for this one."
        )
    largest = max(table.first.max(), table.second.max())
    if largest >= len(store):
        raise UserError(
            f"The pair table points to image {largest}, but {store.name!r} has only "
            f"{len(store)} images: make a new table for it."
        )


def semantic_pairs(store: ImageStore, *, rounds: int = 1, seed: int) -> PairTable:
    """Pair different images of the same class.

    The k images of a class are laid on a circle in random order; round r pairs each
    image with the one r places on. So in every full round each image is `first` once
    and `second` once, and no unordered pair occurs in two rounds: round r runs for
    r < k, r <= k/2, and at r = k/2 > 1 takes half of the circle. (For k = 2, round 1
    gives (a, b) and (b, a).)

    Args:
      store: labelled images; unlabelled ones (-1) are left out.
      rounds: how many partners each image gets, where its class is large enough.
      seed: the table is a function of the store and this number.

    Returns:
      The pairs, round by round, within a round by class. Images that are alone in
      their class are left out, counted in `source`.

    Raises:
      UserError: rounds < 1, or no class has two images.
    """
    if rounds < 1:
        raise UserError(f"rounds must be at least 1, not {rounds}.")
    circles, alone = [], 0
    order = np.argsort(store.labels, kind="stable")
    classes, starts = np.unique(store.labels[order], return_index=True)
    for label, members in zip(classes, np.split(order, starts[1:]), strict=True):
        if label < 0:
            continue
        if len(members) < 2:
            alone += len(members)
            continue
        # Raw bits: NumPy promises that these, not its permutations, never change.
        sequence = np.random.SeedSequence(seed, spawn_key=(int(label),))
        bits = np.random.PCG64(sequence).random_raw(len(members))
        circles.append((label, members[np.argsort(bits, kind="stable")]))
    if not circles:
        raise UserError(
            f"No class of {store.name!r}, split {store.split!r}, has two images, so "
            "there are no semantic pairs: sort the images into class folders, or train "
            "on augmentation pairs."
        )
    first, second, label = [], [], []
    for step in range(1, rounds + 1):
        for name, circle in circles:
            count = len(circle)
            if step > count // 2:
                continue
            used = count // 2 if 1 < step == count / 2 else count
            first.append(circle[:used])
            second.append(np.roll(circle, -step)[:used])
            label.append(np.full(used, name))
    source = f"semantic pairs, rounds={rounds}, seed={seed}"
    if alone:
        source += f"; {alone} images alone in their class left out"
    return PairTable(
        first=np.concatenate(first),
        second=np.concatenate(second),
        label=np.concatenate(label),
        store=store.name,
        split=store.split,
        fingerprint=store.fingerprint,
        source=source,
    )


def own_pairs(store: ImageStore) -> PairTable:
    """Pair each image with itself: augmentation pairs of a store without labels."""
    rows = np.arange(len(store), dtype=np.int32)
    return PairTable(
        first=rows,
        second=rows,
        label=store.labels,
        store=store.name,
        split=store.split,
        fingerprint=store.fingerprint,
        source="each image with itself",
    )


def augmented_pairs(table: PairTable) -> PairTable:
    """The matched augmentation pairs: same first images, each paired with itself.

    As many pairs, from the same images: what a semantic table must be compared with.
    """
    return dataclasses.replace(
        table,
        second=table.first,
        source=f"augmentation pairs matched to: {table.source}",
    )


def save_table(
    path: str | os.PathLike[str], table: PairTable, store: ImageStore
) -> None:
    """Write a table as CSV: comment lines on its origin, then ids and class names.

    Raises:
      UserError: the table was made for another store.
    """
    check_table(table, store)
    text = io.StringIO()
    for key in _HEADER:
        text.write(f"# {key}={' '.join(str(getattr(table, key)).split())}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    columns = (table.first, table.second, table.label)
    for first, second, label in zip(*columns, strict=True):
        name = store.class_names[label] if label >= 0 else ""
        writer.writerow((store.ids[first], store.ids[second], name))
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    # surrogateescape: file names that are not UTF-8.
    temporary.write_text(text.getvalue(), encoding="utf-8", errors="surrogateescape")
    os.replace(temporary, path)


def load_table(path: str | os.PathLike[str], store: ImageStore) -> PairTable:
    """Read a table that `save_table` wrote or that a person made.

    Further columns are ignored, and so are lines that begin with #. The comment lines
    at the top may be missing; with a fingerprint, the store must match it. An empty
    label stands for the class of the first image.

    Raises:
      UserError: the file is missing, lacks a column, was made for another store, or
        names an image or a class that the store does not have (with the line number).
    """
    path = pathlib.Path(path)
    try:
        # utf-8-sig: spreadsheet programs put a byte order mark in front.
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(
            f"Cannot read the pair table {path} ({error}): give a CSV file with "
            f"the columns {', '.join(_COLUMNS)}."
        ) from error
    lines = text.split("\n")  # splitlines() knows more line ends than editors do.
    header, start = {}, 0
    for line in lines:
        # Spreadsheet programs quote comment lines and pad them with commas.
        stripped = line.strip().rstrip(",").strip('"')
        if stripped and not stripped.startswith("#"):
            break
        start += 1
        key, equals, value = stripped.lstrip("# ").partition("=")
        if equals:
            header[key.strip()] = value.strip()
    made_for = header.get("fingerprint", store.fingerprint)
    if made_for != store.fingerprint:
        raise UserError(
            f"{path} was made for store {header.get('store')!r}, split "
            f"{header.get('split')!r} (fingerprint {made_for[:12]}), not for "
            f"{store.name!r}, split {store.split!r} ({store.fingerprint[:12]}): open "
            "that store; or, if the images were changed on purpose, delete the "
            "file's fingerprint line."
        )
    reader = csv.DictReader([f"{line}\n" for line in lines[start:]])
    missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise UserError(
            f"{path} lacks the column {', '.join(missing)}: its first line after the "
            f"comments must be {','.join(_COLUMNS)}."
        )
    rows = {name: row for row, name in enumerate(store.ids)}
    classes = {name: number for number, name in enumerate(store.class_names)}
    first, second, label = [], [], []
    for record in reader:
        begin = record[reader.fieldnames[0]]
        if begin.startswith("#") and begin not in rows:
            continue  # A pair that a person has taken out.
        where = f"{path}, line {start + reader.line_num}"
        for column, column_rows in (("first", first), ("second", second)):
            if record[column] not in rows:
                raise UserError(
                    f"{where}: {store.name!r}, split {store.split!r}, has no image "
                    f"{record[column]!r} (column {column}): correct or remove the line."
                )
            column_rows.append(rows[record[column]])
        if not record["label"]:
            label.append(store.labels[first[-1]])
        elif record["label"] in classes:
            label.append(classes[record["label"]])
        else:
            raise UserError(
                f"{where}: {store.name!r} has no class {record['label']!r}: correct "
                "the label or leave it empty."
            )
    return PairTable(
        first=np.asarray(first, np.int32),
        second=np.asarray(second, np.int32),
        label=np.asarray(label, np.int32),
        store=store.name,
        split=store.split,
        fingerprint=store.fingerprint,
        source=header.get("source", f"file {path.name}"),
    )
