"""Pairs per second of one core: decoding JPEG files, with two random crops of 224 pixels.

    python -m benchmarks.decoding

Two photographs that scikit-learn has, cut to 500 x 375 pixels at random places (ImageNet's
mean size), 200 of them, written as `input_pipeline.prepare --coded` writes images.

* `sp_jax`: what a worker of the stream does for a batch of augmentation pairs, a file decoded
  and two crops a pair: its random numbers, ArrayRecord, PIL's decoder and resize.
* `torchvision, PIL`: PIL's decoder, as in torchvision's folders of images, and
  `RandomResizedCrop` twice, its files in memory. The two libraries have the same PIL.
* `torchvision, tensors`: `decode_jpeg` and the second version of `RandomResizedCrop` twice, on
  uint8 tensors. Left out where torchvision has no decoder, as beside a torch of another build.
* `sp_jax, semantic pairs`: two files decoded and a crop of each.

Each makes a batch of what it has cropped. All take turns in one process on one core, and CPU
time is counted, so that another load on the machine hits all alike. Prints a Markdown table:
pairs/s, and what `sp_jax` has over the others in each round; then what PIL's reduced decoding
would save and spoil for smaller views.
"""

import argparse
import functools
import io
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from benchmarks.common import spread, table_head, table_row, take_turns
from input_pipeline.pairs import pairing
from input_pipeline.pairs.host_crops import HostCrops, cut
from input_pipeline.pairs.sampling import Sampler
from input_pipeline.stores import ImageStore, open_store, records
from input_pipeline.stores.image_source import Source, make_meta
from sp_jax.crops import Crop

IMAGES = 200


def make_store(folder: str, shorter_side: int, quality: int) -> ImageStore:
    """A coded store of the photographs' parts."""
    from sklearn.datasets import load_sample_images

    photographs, rng = load_sample_images().images, np.random.default_rng(0)

    def read(row: int) -> np.ndarray:
        image = photographs[row % len(photographs)]
        top, left = places[row] % (np.array(image.shape[:2]) - (375, 500))
        return image[top : top + 375, left : left + 500]

    places = rng.integers(0, 10**6, (IMAGES, 2))
    ids = [f"{row:03d}" for row in range(IMAGES)]
    meta = functools.partial(make_meta, ids, ["photograph"] * IMAGES, {})
    source = Source("photographs", "1", meta, lambda: read)
    coding = records.Coding(shorter_side, quality)
    records.write(source, folder, 0, "crop", 0, IMAGES, coding)
    return open_store(f"array_record:{folder}")


def ours(store: ImageStore, crop: Crop, kind: str) -> Callable[[], None]:
    table = pairing.class_pairs(store, 0, seed=0)  # Each image once.
    sampler = Sampler(table, IMAGES // 2, 0, pairing=kind)
    host = HostCrops(store.images, [crop, crop], 0)
    return lambda: host.read(0, sampler.batch(0), slice(None))


def by_pil(files: list[bytes], size: int) -> Callable[[], None]:
    from tests.torchvision_ref import torchvision

    crop = torchvision.transforms.RandomResizedCrop(size)

    def turn() -> None:
        batch = np.empty((len(files), 2, size, size, 3), np.uint8)
        for row, file in zip(batch, files, strict=True):
            image = Image.open(io.BytesIO(file)).convert("RGB")
            for view in row:
                view[...] = crop(image)

    return turn


def by_tensors(files: list[bytes], size: int) -> Callable[[], None] | None:
    from tests.torchvision_ref import torch, torchvision

    crop = torchvision.transforms.v2.RandomResizedCrop(size, antialias=True)
    tensors = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
    mode = torchvision.io.ImageReadMode.RGB

    def turn() -> None:
        views = []
        for tensor in tensors:
            image = torchvision.io.decode_jpeg(tensor, mode)
            views += [crop(image), crop(image)]
        torch.stack(views)

    try:
        turn()
    except RuntimeError:
        return None
    return turn


def timed(turn: Callable[[], None]) -> Callable[[], float]:
    """Pairs per second of CPU time."""

    def call() -> float:
        started = time.process_time()
        turn()
        return IMAGES / 2 / (time.process_time() - started)

    return call


def reduced(files: list[bytes], size: int) -> None:
    """Print how decoding at half the size changes crops that are made half as large."""
    crop, off, seconds = (
        Crop(size, (0.08, 1), (3 / 4, 4 / 3), "bilinear"),
        [],
        [0.0, 0.0],
    )
    for file in files:
        views = []
        for place, scale in enumerate((1, 2)):
            started = time.process_time()
            image = Image.open(io.BytesIO(file))
            width, height = image.size
            image.draft("RGB", (width // scale, height // scale))
            image.load()
            height, width = 2 * size // scale, 2 * size // scale
            views.append(cut(image, (0, 0, height, width), crop).astype(int))
            seconds[place] += time.process_time() - started
        off.append(np.abs(views[1] - views[0]))
    print(
        f"\n{size} px from {2 * size} px, decoded at half of the size: "
        f"{np.mean(off):.2f} gray levels off on average, 99 % below "
        f"{np.percentile(off, 99):.0f}, at most {np.max(off)}; "
        f"{seconds[0] / seconds[1]:.2f} times as fast with one crop"
    )


def main(argv: list[str]) -> None:
    """Write the files, measure in turns, and print."""
    form = argparse.ArgumentDefaultsHelpFormatter
    about = __doc__.partition("\n")[0]
    parser = argparse.ArgumentParser(description=about, formatter_class=form)
    add = functools.partial(parser.add_argument, type=int)
    add("--size", default=224, help="side of the views in pixels")
    add("--shorter_side", default=256, help="of the files")
    add("--quality", default=90, help="of the files")
    add("--rounds", default=9)
    options = parser.parse_args(argv)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    crop = Crop(options.size, (0.08, 1.0), (3 / 4, 4 / 3), "bilinear")
    with tempfile.TemporaryDirectory() as folder:
        out = str(pathlib.Path(folder, "coded"))
        store = make_store(out, options.shorter_side, options.quality)
        files = [file.tobytes() for file in store.images.stored(np.arange(IMAGES))]
        print(f"{IMAGES} files of {statistics.mean(map(len, files)) / 1e3:.1f} KB\n")
        turns = {
            "sp_jax": ours(store, crop, "augmented"),
            "sp_jax, semantic pairs": ours(store, crop, "semantic"),
            "torchvision, PIL": by_pil(files[::2], options.size),
            "torchvision, tensors": by_tensors(files[::2], options.size),
        }
        turns = {name: timed(turn) for name, turn in turns.items() if turn}
        found = take_turns(turns, options.rounds, warm_up=1)
    print(table_head(("", "pairs/s", "range", "sp_jax is faster by", "range")))
    for name, speeds in found.items():
        ratios = [a / b for a, b in zip(found["sp_jax"], speeds, strict=True)]
        more = spread(ratios, ".2f") if name != "sp_jax" else ["", ""]
        print(table_row((name, *spread(speeds, ",.0f"), *more)))
    reduced(files, 64)


if __name__ == "__main__":
    main(sys.argv[1:])
