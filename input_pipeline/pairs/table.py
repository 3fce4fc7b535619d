"""Pair tables: which two images of a store make a positive pair.

A table is data, not code: it can be saved as a CSV file, looked at, curated by hand
and loaded again. `second == first` is an augmentation pair (two views of one image).
`pairing` makes tables.
"""

import dataclasses
import hashlib
import io
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline import text_files
from input_pipeline.pairs.origin import Recipe, read_origin
from input_pipeline.stores import ImageStore
from sp_jax.errors import UserError
from sp_jax.files import write_text

_COLUMNS = ("first", "second", "label")
_SHOWN = 200  # characters of a wrong name, which may be half of a file
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
      recipe: the same as JSON, see `origin`; a table of which none is given is known by its
        digest.

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
    recipe: Recipe = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the columns and make them int32, read-only."""
        for name, given in self.columns.items():
            given = np.asarray(given)
            if given.ndim != 1 or given.dtype.kind not in "iu":
                raise UserError(
                    f"Column {name!r} of a pair table must be one-dimensional whole "
                    f"numbers, not {given.dtype} {list(given.shape)}."
                )
            column = given.astype(np.int32)  # A copy: safe to freeze.
            column.setflags(write=False)
            object.__setattr__(self, name, column)
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise UserError(f"The columns of a pair table differ in length: {lengths}.")
        if not len(self.first):
            raise UserError(f"The pair table ({self.source}) holds no pairs.")
        if min(self.first.min(), self.second.min()) < 0:
            raise UserError("A pair table must not hold negative image indices.")
        if not self.recipe:
            object.__setattr__(self, "recipe", {"by": "file", "digest": self.digest})

    def __len__(self) -> int:
        """The number of pairs P."""
        return len(self.first)

    @classmethod
    def of(
        cls,
        store: ImageStore,
        first: np.ndarray,
        second: np.ndarray,
        source: str,
        recipe: Recipe | None = None,
    ) -> "PairTable":
        """A table of pairs of a store; each pair has the label of its first image."""
        made_for = store.name, store.split, store.fingerprint
        return cls(first, second, store.labels[first], *made_for, source, recipe or {})

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """The columns by name, int32 [P]."""
        return {name: getattr(self, name) for name in _COLUMNS}

    def take(
        self, pairs: np.ndarray, how: str, recipe: Recipe | None = None
    ) -> "PairTable":
        """The table of some pairs; its source begins with `how` they were chosen."""
        new: dict[str, Any] = {name: x[pairs] for name, x in self.columns.items()}
        new |= {"source": f"{how}: {self.source}", "recipe": recipe or {}}
        return dataclasses.replace(self, **new)

    def info(self) -> dict[str, Any]:
        """The record of the pairs in a checkpoint, as plain JSON.

        Returns:
          source and recipe; same, the share of pairs whose two images are one; digest; store,
          the fingerprint of the images.
        """
        return {
            "source": self.source,
            "recipe": dict(self.recipe),
            "same": float((self.first == self.second).mean()),
            "digest": self.digest,
            "store": self.fingerprint,
        }

    @property
    def digest(self) -> str:
        """SHA-256 hex over the pairs and the fingerprint of their store."""
        whole = hashlib.sha256(self.fingerprint.encode())
        for column in self.columns.values():
            whole.update(column.astype("<i4").tobytes())
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


def save_table(
    path: str | os.PathLike[str],
    table: PairTable,
    store: ImageStore,
    score: np.ndarray | None = None,
    more: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Write a table as CSV: comment lines on its origin, then image ids and class names.

    Args:
      path: of the file; it is whole or absent.
      table: pairs of the store.
      store: gives ids and class names.
      score: float [P], a further column: how sure each pair is.
      more: further columns of P values, by name.

    Raises:
      UserError: the table was made for another store.
    """
    check_table(table, store)
    text = io.StringIO()
    for key in _HEADER:
        text.write(f"# {key}={' '.join(str(getattr(table, key)).split())}\n")
    text.write(f"# recipe={json.dumps(table.recipe)}\n# digest={table.digest}\n")
    further = {} if score is None else {"score": [f"{x:.6f}" for x in score]}
    further |= more or {}
    text.write(text_files.csv_line((*_COLUMNS, *further)))
    columns = zip(*table.columns.values(), *further.values(), strict=True)
    for first, second, label, *values in columns:
        names = store.ids[first], store.ids[second], store.class_name(label)
        text.write(text_files.csv_line((*names, *values)))
    write_text(path, text.getvalue())


def load_table(path: str | os.PathLike[str], store: ImageStore) -> PairTable:
    """Read a table that `save_table` or a person wrote.

    Images are named by their ids; those of a folder also by absolute paths. Further columns
    are ignored, and so are lines that begin with #. The comment lines at the top may be
    missing; with a fingerprint, the store must match it. An empty label stands for the class
    of the first image.

    Raises:
      UserError: the file is missing or no table, lacks a column, was made for another store, or
        names an image or a class that the store does not have (with the line number).
    """
    path = pathlib.Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"Cannot read the pair table {path} ({error}): give a CSV file with "
            f"the columns {', '.join(_COLUMNS)}."
        ) from error
    header, rows = read_rows(path, content)
    made_for = header.get("fingerprint", store.fingerprint)
    if made_for != store.fingerprint:
        raise UserError(
            f"{path} was made for store {header.get('store')!r}, split "
            f"{header.get('split')!r} (fingerprint {made_for[:12]}), not for "
            f"{store.name!r}, split {store.split!r} ({store.fingerprint[:12]}): open "
            "that store, with the same image size and way to resize; or, if the images "
            "were changed on purpose, delete the file's fingerprint line."
        )
    _, columns = next(rows, (0, []))
    columns = [name.strip() for name in columns]
    if missing := [name for name in _COLUMNS if name not in columns]:
        raise UserError(
            f"{path} lacks the column {', '.join(missing)}: its first line after the "
            f"comments must be {','.join(_COLUMNS)}."
        )
    places = [columns.index(name) for name in _COLUMNS]
    find = text_files.finder(store.ids)
    find_class = text_files.finder(store.class_names)
    first, second, label = [], [], []
    for number, row in rows:
        where = f"{path}, line {number}"
        if row[0].startswith("#") and find(row[0]) is None:
            continue  # A pair that a person has taken out.
        if lacks := [columns[place] for place in places if place >= len(row)]:
            lacks = ", ".join(lacks)
            raise UserError(
                f"{where}: the row has no column {lacks}: complete or remove it."
            )
        *images, class_name = (row[place] for place in places)
        for column, name, found in zip(_COLUMNS, images, (first, second), strict=False):
            image = find(name)
            if image is None and store.root and name:
                image = find(_relative(name, store.root, where))
            if image is None:
                raise UserError(
                    f"{where}: {store.name!r}, split {store.split!r}, has no image "
                    f"{name[:_SHOWN]!r} (column {column}): {_advice(name)}."
                )
            found.append(image)
        label.append(find_class(class_name) if class_name else store.labels[first[-1]])
        if label[-1] is None:
            raise UserError(
                f"{where}: {store.name!r} has no class {class_name[:_SHOWN]!r}: "
                f"{_advice(class_name)}, or leave the label empty."
            )
    header.setdefault("source", f"file {path.name}")
    columns = (np.asarray(column, np.int32) for column in (first, second, label))
    made_for = store.name, store.split, store.fingerprint
    table = PairTable(*columns, *made_for, header["source"])
    source, recipe = read_origin(header, table.digest)
    return dataclasses.replace(table, source=source, recipe=recipe)


def read_rows(
    path: pathlib.Path, content: bytes
) -> tuple[dict[str, str], Iterator[tuple[int, list[str]]]]:
    """The comment lines at the top, and the rows after them, each with its line number."""
    text = text_files.decode(content, path, "surrogateescape")
    # Line ends stay as they are: names in quotation marks may hold some.
    lines = list(io.StringIO(text, newline=""))
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
    return header, text_files.read_csv(lines, path, start)


def _advice(name: str) -> str:
    """Advice on a name that is not found."""
    if "\n" in name or "\r" in name:
        return 'look for a quotation mark (") without its partner'
    if any("\udc80" <= character <= "\udcff" for character in name):
        return "if the name looks right in your editor, save the file as UTF-8"
    return "correct or remove the line"


def _relative(name: str, root: pathlib.Path, where: str) -> str:
    """The id of an image that a person has given by another path."""
    parts = pathlib.Path(os.path.relpath(root / name, root)).parts
    if parts[:1] == (os.pardir,):
        raise UserError(
            f"{where}: {name[:_SHOWN]!r} lies outside the store's folder {root}: move "
            "the image into it, or open a store that holds both."
        )
    return "/".join(parts)
