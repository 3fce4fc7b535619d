"""How fast batches of stored images can be read: ArrayRecord against a memory map.

    python -m benchmarks.store_formats

Reads random batches of the embedded drawings (64x64x3 bytes each, in the page cache):

* ArrayRecord: one `read` of all the batch's records (written with group_size:1, its
  fastest setting for random access), put into one array;
* memory map: one fancy-indexing operation on the .npy file, as `ImageStore.read` does;
* stream: `input_pipeline.stream.iterate`, semantic pairs, with its thread.

The three take turns in one run, so that another load on the machine hits all alike.
Prints a Markdown table: images/s, median and range over the rounds.
"""

import argparse
import os
import pathlib
import tempfile
import time
from collections.abc import Callable

import numpy as np

from input_pipeline.pairing import semantic_pairs
from input_pipeline.sampling import Sampler
from input_pipeline.store import ImageStore, open_store
from input_pipeline.stream import iterate, make_dataset


def write_records(path: pathlib.Path, store: ImageStore) -> None:
    """Every image's bytes as one record."""
    from array_record.python import array_record_module

    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    for image in store.images:
        writer.write(image.tobytes())
    writer.close()


def record_reader(path: pathlib.Path, store: ImageStore) -> Callable:
    """A function indices -> uint8 [n, S, S, 3] that reads the records."""
    from array_record.python import array_record_module

    reader = array_record_module.ArrayRecordReader(str(path))
    shape = store.images.shape[1:]

    def read(indices: np.ndarray) -> np.ndarray:
        records = reader.read(indices.tolist())
        pixels = np.frombuffer(b"".join(records), np.uint8)
        return pixels.reshape(len(indices), *shape)

    return read


def seconds(work: Callable[[], None]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Time the three ways in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch_size", type=int, default=256, help="images or pairs")
    parser.add_argument("--batches", type=int, default=50, help="in each round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--data_dir", help="where prepared images are kept")
    options = parser.parse_args()
    size, count = options.batch_size, options.batches
    store = open_store("emoji", data_dir=options.data_dir)
    stream = make_dataset(store, Sampler(semantic_pairs(store, seed=0), size, seed=0))
    random = np.random.default_rng(0)

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "images.array_record"
        write_records(path, store)
        records = record_reader(path, store)
        rows = random.integers(0, len(store), size)
        np.testing.assert_array_equal(records(rows), store.read(rows))

        def read_all(read: Callable[[np.ndarray], np.ndarray]) -> None:
            for rows in random.integers(0, len(store), (count, size)):
                read(rows)

        def read_stream() -> None:
            for _ in iterate(stream, 0, count):
                pass

        ways = {
            "ArrayRecord, read(batch)": (lambda: read_all(records), size),
            "memory map, whole batches": (lambda: read_all(store.read), size),
            "stream of pairs": (read_stream, 2 * size),
        }
        speeds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, (work, images) in ways.items():
                speeds[name].append(count * images / seconds(work))

    slowest = np.median(next(iter(speeds.values())))
    print(
        f"Batches of {size}, {count} batches x {options.rounds} rounds in turn, "
        f"{os.cpu_count()} CPUs\n\n| store | images/s | range | ratio |\n"
        + "|---" * 4
        + "|"
    )
    for name, speed in speeds.items():
        median = np.median(speed)
        low, high = min(speed) / 1e3, max(speed) / 1e3
        print(
            f"| {name} | {median / 1e3:.0f} k | {low:.0f}-{high:.0f} k "
            f"| {median / slowest:.1f} x |"
        )


if __name__ == "__main__":
    main()
