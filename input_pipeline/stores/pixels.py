"""Pixels on disk, read by whole batches: a memory-mapped array or ArrayRecord files.

Both can be sent to another process, which opens the files for itself.
"""

import os
import pathlib
import threading
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from array_record.python import array_record_module

from sp_jax.errors import UserError


class Pixels(Protocol):
    """Images of one size, uint8 [N, S, S, 3], that stay on disk."""

    shape: tuple[int, int, int, int]

    def __len__(self) -> int:
        """The number of images N."""

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """A new array uint8 [..., S, S, 3] for rows [...]."""


class NpyPixels:
    """The rows of an .npy file."""

    def __init__(self, path: str | os.PathLike[str]):
        """Open the file.

        Raises:
          ValueError: it does not hold images.
          OSError: it is missing or truncated.
        """
        self._path = pathlib.Path(path)
        # np.load checks the length of the file against its header.
        self._array = np.load(self._path, mmap_mode="r")
        self.shape = self._array.shape
        if self._array.ndim != 4 or self._array.dtype != np.uint8:
            raise ValueError(f"{path} holds no uint8 images.")

    def __len__(self) -> int:
        """The number of images."""
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The pixels of some rows."""
        return np.asarray(self._array[rows])

    def __reduce__(self):
        """By path: without it, a memory map is sent with all its bytes."""
        return NpyPixels, (self._path,)


class RecordPixels:
    """The records of several ArrayRecord files, one behind the other.

    A record is the bytes of one image. Files are opened when they are first read from.
    """

    def __init__(
        self, paths: Sequence[str | os.PathLike[str]], counts: Sequence[int], size: int
    ):
        """Name the files, the number of records of each, and the side of an image."""
        self._paths, self._counts = [pathlib.Path(path) for path in paths], list(counts)
        self._starts = np.concatenate([[0], np.cumsum(self._counts)])
        self._readers: dict[int, array_record_module.ArrayRecordReader] = {}
        self._lock = threading.Lock()
        self.shape = (int(self._starts[-1]), size, size, 3)

    def __len__(self) -> int:
        """The number of images."""
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The pixels of some rows; each file is read once."""
        rows = np.asarray(rows)
        flat = rows.reshape(-1)
        if flat.size and not 0 <= flat.min() <= flat.max() < len(self):
            raise IndexError(f"rows must be in [0, {len(self)})")
        images = np.empty((flat.size, *self.shape[1:]), np.uint8)
        shards = np.searchsorted(self._starts, flat, side="right") - 1
        for shard in np.unique(shards):
            (places,) = np.nonzero(shards == shard)
            reader = self._reader(int(shard))
            try:
                records = reader.read((flat[places] - self._starts[shard]).tolist())
                for place, record in zip(places, records, strict=True):
                    pixels = np.frombuffer(record, np.uint8)
                    images[place] = pixels.reshape(self.shape[1:])
            except (ValueError, RuntimeError) as error:
                raise UserError(
                    f"Cannot read {self._paths[shard]} ({error}): prepare the images "
                    "again."
                ) from error
        return images.reshape(*rows.shape, *self.shape[1:])

    def __reduce__(self):
        """By paths: open readers cannot be sent."""
        return RecordPixels, (self._paths, self._counts, self.shape[1])

    def _reader(self, shard: int) -> array_record_module.ArrayRecordReader:
        with self._lock:
            if shard not in self._readers:
                path = self._paths[shard]
                try:
                    # Random reads: no read-ahead.
                    reader = array_record_module.ArrayRecordReader(
                        str(path), options="readahead_buffer_size:0"
                    )
                    count, reason = reader.num_records(), ""
                except ValueError as error:
                    count, reason = 0, f" ({error})"
                if count != self._counts[shard]:
                    # A lack of permission or of file handles reads as no records, too.
                    with open(path, "rb"), open(path, "rb"):
                        pass
                    raise UserError(
                        f"{path} holds {count} images instead of {self._counts[shard]}"
                        f"{reason}: prepare the images again."
                    )
                self._readers[shard] = reader
            return self._readers[shard]


class Rows:
    """Some rows of pixels, in their order, without a copy."""

    def __init__(self, pixels: Pixels, rows: np.ndarray):
        """Name the pixels and the rows."""
        self._pixels, self._rows = pixels, np.asarray(rows, np.int64)
        self.shape = (len(self._rows), *pixels.shape[1:])

    def __len__(self) -> int:
        """The number of images."""
        return len(self._rows)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The pixels of some of the rows."""
        return self._pixels[self._rows[rows]]
