"""Pairs per second of the host alone: the stream of batches that a step would wait for.

    python -m benchmarks.input
    python -m benchmarks.input --stores=folder:/data/imagenet187,array_record --workers=0,4
    python -m benchmarks.input --stores=array_record --images=1280000

Reads batches in training order and throws them away. A store is one of the trainer's (its
images are prepared once, and then lie in a memory map), or `array_record`: the embedded
drawings again and again, written once into ArrayRecord files (12 KB an image of 64 px).

* workers: processes that read; 0 for one thread of this process.
* prefetch: batches held ready, of each worker; 0 reads when a batch is asked for.

All settings take turns, round after round, so that another load on the machine hits all
alike. Prints a Markdown row each: pairs/s (median and range), and the peak memory of the
largest worker. Files that were read lately are in the system's cache: the numbers say what
reading costs the cores, not the disk.
"""

import argparse
import functools
import itertools
import multiprocessing
import pathlib
import sys
import time
from typing import NamedTuple

from benchmarks.common import spread, table_head, table_row, take_turns
from input_pipeline.pairs import pairing, stream
from input_pipeline.pairs.sampling import Sampler
from input_pipeline.stores import ImageStore, open_store, records
from input_pipeline.stores.image_source import Source, make_meta

CLASS_SIZE = 1280
WARM_UP = 5  # batches


class Setting(NamedTuple):
    """How a stream is read."""

    store: str
    pairing: str
    workers: int
    prefetch: int


def make_source(images: int) -> Source:
    """The drawings, repeated, in classes of 1,280."""
    base = open_store("emoji")
    ids = [f"{i // CLASS_SIZE:04d}/{i:07d}" for i in range(images)]
    classes = [name.partition("/")[0] for name in ids]
    return Source(
        name="drawings",
        key=f"{images} {base.fingerprint}",
        meta=lambda: make_meta(ids, classes, {}),
        open_reader=lambda: lambda row: base.read(row % len(base)),
    )


def open_images(name: str, images: int, folder: pathlib.Path) -> ImageStore:
    """A store; array_record has `images` images, in a folder."""
    if name == "array_record":
        folder = folder / str(images)
        records.write(make_source(images), folder, 64, "crop", 0.0, 16384)
        name = f"array_record:{folder}"
    return open_store(name)


def peak(pid: int | str) -> float:
    """Largest resident memory of a process so far, in MB."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    line = next(x for x in status.splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1e3


def measure(
    images: ImageStore, setting: Setting, batch_size: int, steps: int
) -> tuple[float, float]:
    """Pairs per second, and the peak memory of the largest worker in MB (0 for none)."""
    table = pairing.semantic_pairs(images, seed=0)
    sampler = Sampler(table, batch_size, 0, setting.pairing)
    batches = stream.iterate(
        stream.make_dataset(images, sampler),
        0,
        WARM_UP + steps,
        setting.prefetch,
        setting.workers,
    )
    for _ in range(WARM_UP):
        next(batches)
    started = time.perf_counter()
    for _ in range(steps):
        next(batches)
    seconds = time.perf_counter() - started
    workers = [peak(x.pid) for x in multiprocessing.active_children()]
    batches.close()
    return batch_size * steps / seconds, max(workers, default=0.0)


def markdown(setting: Setting, speeds: list[float], megabytes: float) -> str:
    """One row of the table."""
    memory = f"{megabytes:.0f}" if megabytes else ""
    return table_row((*setting, *spread(speeds, ",.0f"), memory))


def parse(argv: list[str]) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])

    def add_list(name: str, default: str, kind: type = str) -> None:
        parser.add_argument(
            name, default=default, type=lambda text: [kind(x) for x in text.split(",")]
        )

    add_list("--stores", "emoji,array_record")
    add_list("--pairings", "semantic,augmented")
    add_list("--workers", "0,1,2", int)
    add_list("--prefetch", "0,2", int)
    parser.add_argument("--images", type=int, default=58_718, help="of array_record")
    parser.add_argument("--batch_size", type=int, default=256, help="pairs")
    parser.add_argument("--steps", type=int, default=200, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--dir", type=pathlib.Path, default="runs/input", help="of array_record; kept"
    )
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    """Prepare the stores where needed, measure in turns, and print."""
    options = parse(argv)
    started = time.perf_counter()
    stores = {x: open_images(x, options.images, options.dir) for x in options.stores}
    print(
        f"stores ready in {time.perf_counter() - started:.0f} s; {peak('self'):.0f} MB"
    )
    settings = [
        Setting(*values)
        for values in itertools.product(
            stores, options.pairings, options.workers, options.prefetch
        )
    ]
    # A worker always holds a batch ready.
    settings = [x for x in settings if x.prefetch or not x.workers]
    work = options.batch_size, options.steps
    turns = {x: functools.partial(measure, stores[x.store], x, *work) for x in settings}
    found = take_turns(turns, options.rounds)
    print(table_head((*Setting._fields, "pairs/s", "range", "worker, MB")))
    for setting, values in found.items():
        speeds, megabytes = zip(*values, strict=True)
        print(markdown(setting, list(speeds), max(megabytes)))
    print(f"peak memory of this process: {peak('self'):.0f} MB")


if __name__ == "__main__":
    main(sys.argv[1:])
