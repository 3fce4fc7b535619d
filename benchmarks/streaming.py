"""Stream a set that is larger than memory should hold: throughput and peak memory.

    python -m benchmarks.streaming --images=1280000 --workers=0,1,2

Writes the embedded drawings again and again into ArrayRecord files (12 KB an image of 64 px,
16 GB for 1.28 million), pairs all of them, and reads batches of 256 pairs in training order.
Prints pairs a second and, for this process and for the largest worker, the peak of the
resident memory; a third number is that of this process before anything was read.
"""

import pathlib
import time

import numpy as np
import psutil
from absl import app, flags

from input_pipeline import pairing, records, stream
from input_pipeline.sampling import Sampler
from input_pipeline.source import Source, make_meta
from input_pipeline.store import open_store

_IMAGES = flags.DEFINE_integer("images", 200_000, "Images of the set.", 1000)
_WORKERS = flags.DEFINE_list("workers", ["0", "1", "2"], "Worker processes to try.")
_STEPS = flags.DEFINE_integer("steps", 300, "Batches of 256 pairs a measurement.", 1)
_DIR = flags.DEFINE_string("dir", "runs/streaming", "Folder of the set; it is kept.")

CLASS_SIZE = 1280


def make_source(images: int) -> Source:
    """The drawings, over and over, in classes of 1,280."""
    base = open_store("emoji")
    ids = [f"{i // CLASS_SIZE:04d}/{i:07d}" for i in range(images)]
    classes = [name.partition("/")[0] for name in ids]
    return Source(
        name="streaming",
        key=f"{images} {base.fingerprint}",
        meta=lambda: make_meta(ids, classes, {}),
        open_reader=lambda: lambda row: base.read(row % len(base)),
    )


def peak(process: psutil.Process) -> float:
    """Largest resident memory of a process so far, in MB."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    line = next(x for x in status.splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1e3


def main(argv: list[str]) -> None:
    """Prepare the set where needed, and measure."""
    del argv
    me = psutil.Process()
    folder = pathlib.Path(_DIR.value) / str(_IMAGES.value)
    started = time.perf_counter()
    records.write(make_source(_IMAGES.value), folder, 64, "crop", 0.0, 16384)
    print(f"prepared in {time.perf_counter() - started:.0f} s (0 if it was there)")
    store = open_store(f"array_record:{folder}")
    table = pairing.class_pairs(store, 0, seed=0)
    dataset = stream.make_dataset(store, Sampler(table, 256, seed=0))
    print(f"{len(store)} images, {len(table)} pairs, {peak(me):.0f} MB before reading")
    for workers in map(int, _WORKERS.value):
        batches = stream.iterate(dataset, 0, _STEPS.value + 20, 2, workers)
        for _ in range(20):
            next(batches)
        started, largest = time.perf_counter(), 0.0
        for _ in range(_STEPS.value):
            pixels = next(batches)["image"]
        seconds = time.perf_counter() - started
        assert pixels.dtype == np.uint8
        largest = max([peak(x) for x in me.children(recursive=True)] or [0.0])
        batches.close()
        print(
            f"{workers} workers: {256 * _STEPS.value / seconds:.0f} pairs/s; "
            f"{peak(me):.0f} MB here, {largest:.0f} MB in the largest worker"
        )


if __name__ == "__main__":
    app.run(main)
