"""Write files of embeddings (.parquet, .npz, .csv) by blocks, and read them as one array."""

import csv
import pathlib
import zipfile
from collections.abc import Iterable, Mapping

import numpy as np

from sp_jax import extras
from sp_jax.errors import UserError

# Columns of text or int32 [N], in the order in which they are written.
Columns = Mapping[str, np.ndarray]
# Features float32 [n, D], all N rows in their order, and (N, D).
Blocks = Iterable[np.ndarray]
Shape = tuple[int, int]


def check_path(path: pathlib.Path) -> None:
    """Raise UserError if files of this name cannot be written or read here."""
    if path.suffix not in _FORMS:
        raise UserError(
            f"{path} has an unknown format: end --out in one of {', '.join(_FORMS)}."
        )
    if path.suffix == ".parquet":
        extras.require("parquet", "A Parquet file (.npz and .csv do not)")


def write(path: pathlib.Path, columns: Columns, blocks: Blocks, shape: Shape) -> None:
    """Write a file in the format of its suffix; the same content gives the same bytes."""
    _FORMS[path.suffix][0](path, columns, blocks, shape)


def read_features(path: pathlib.Path, count: int) -> np.ndarray:
    """Read the features of `count` images that `write` wrote: float32 [count, D], C-contiguous.

    Raises:
      UserError: the file is damaged, or of another number of images.
    """
    try:
        features = _FORMS[path.suffix][1](path, count)
        if features.ndim != 2 or len(features) != count:
            raise ValueError(f"it does not hold the features of {count:,} images")
    except (ValueError, KeyError, EOFError, StopIteration, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is damaged ({error}): remove it, and embed again."
        ) from error
    return features


def _write_npz(
    path: pathlib.Path, columns: Columns, blocks: Blocks, shape: Shape
) -> None:
    with zipfile.ZipFile(path, "w") as archive:

        def member(name):  # without the time of day, which numpy writes
            return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)

        for name, values in columns.items():
            with member(name) as file:
                np.lib.format.write_array(file, values, allow_pickle=False)
        with member("features") as file:
            about = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, about)
            for block in blocks:
                file.write(block.astype("<f4").tobytes())


def _read_npz(path: pathlib.Path, count: int) -> np.ndarray:
    with np.load(path) as archive:
        return archive["features"]


def _write_parquet(
    path: pathlib.Path, columns: Columns, blocks: Blocks, shape: Shape
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = [
        pa.string() if x.dtype.kind == "U" else pa.int32() for x in columns.values()
    ]
    kinds.append(pa.list_(pa.float32(), shape[1]))
    schema = pa.schema(list(zip([*columns, "features"], kinds, strict=True)))
    # Few classes, but hardly one number twice.
    with pq.ParquetWriter(path, schema, use_dictionary=["class"]) as writer:
        start = 0
        for block in blocks:
            end = start + len(block)
            values = [pa.array(x[start:end]) for x in columns.values()]
            values.append(pa.FixedSizeListArray.from_arrays(block.ravel(), shape[1]))
            writer.write_table(pa.table(values, schema=schema))
            start = end


def _read_parquet(path: pathlib.Path, count: int) -> np.ndarray:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        width = file.schema_arrow.field("features").type.list_size
        features, start = np.empty((count, width), np.float32), 0
        for batch in file.iter_batches(columns=["features"]):
            block = batch.column(0).flatten().to_numpy().reshape(-1, width)
            features[start : start + len(block)] = block
            start += len(block)
    return features[:start]


def _write_csv(
    path: pathlib.Path, columns: Columns, blocks: Blocks, shape: Shape
) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*columns, *(f"f{i}" for i in range(shape[1]))])
        others = zip(*columns.values(), strict=True)
        for block in blocks:
            for row in block:  # A float32 in as few digits as give it again.
                writer.writerow([*next(others), *map(str, row)])


def _read_csv(path: pathlib.Path, count: int) -> np.ndarray:
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        header = next(rows)
        first = header.index("f0")
        features, start = np.empty((count, len(header) - first), np.float32), 0
        for row in rows:
            features[start] = row[first:]
            start += 1
    return features[:start]


_FORMS = {
    ".parquet": (_write_parquet, _read_parquet),
    ".npz": (_write_npz, _read_npz),
    ".csv": (_write_csv, _read_csv),
}
