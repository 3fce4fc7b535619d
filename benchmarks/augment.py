"""Views per second on one CPU core: this project's augmentation and two others.

    python -m benchmarks.augment

The full SimCLR set (crop, flip, jitter in random order, grayscale, blur, normalise) on
256 of the embedded 64 px drawings:

* `sp_jax`: `augment`, compiled, the whole batch at once;
* `torchvision v2`: its transforms on uint8 tensors, image by image;
* `lightly`: `SimCLRTransform`'s view on PIL images, image by image.

The last two are left out where they are not installed (`pip install torchvision`,
`pip install lightly`). Everything runs on one core and takes turns in one process, so
that another load on the machine hits all alike; the images are in memory, decoded, and
each result is one float32 batch. Prints a Markdown table (median and range over the
rounds, median of the ratios within a round) and one line of JSON.
"""

import argparse
import functools
import importlib.util
import json
import os
import statistics
import time
from collections.abc import Callable

import numpy as np

from benchmarks.common import spread, table_head, table_row, take_turns

SIZE = 64
BATCH = 256
REPEATS = 8  # batches a turn of ours, which is several times as fast


def use_one_core() -> None:
    """Pins this process; has to come before jax is imported."""
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = (
        "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    )


def ours(images: np.ndarray) -> Callable[[], int]:
    import jax

    from sp_jax.augment import Augment, augment

    config = Augment(size=SIZE)
    run = jax.jit(lambda key, images: augment(key, images, config))
    images = jax.device_put(images)
    keys = jax.random.split(jax.random.key(0), REPEATS)

    def turn() -> int:
        for key in keys:
            run(key, images).block_until_ready()
        return REPEATS * len(images)

    return turn


def torchvision_v2(images: np.ndarray) -> Callable[[], int]:
    from tests.torchvision_ref import torch, torchvision

    v2 = torchvision.transforms.v2
    transform = v2.Compose([
        v2.RandomResizedCrop(SIZE, scale=(0.08, 1.0), antialias=True),
        v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8),
        v2.RandomGrayscale(0.2),
        v2.RandomApply([v2.GaussianBlur(7, (0.1, 2.0))], 0.5),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ])  # fmt: skip
    tensors = list(torch.from_numpy(np.moveaxis(images, -1, 1).copy()))

    def turn() -> int:
        return len(torch.stack([transform(tensor) for tensor in tensors]))

    return turn


def lightly(images: np.ndarray) -> Callable[[], int]:
    # First, since it makes torchvision importable, which lightly needs.
    from tests.torchvision_ref import torch  # isort: skip

    from lightly.transforms.simclr_transform import SimCLRViewTransform
    from PIL import Image

    transform = SimCLRViewTransform(input_size=SIZE)
    pictures = [Image.fromarray(image) for image in images]

    def turn() -> int:
        return len(torch.stack([transform(picture) for picture in pictures]))

    return turn


def installed(name: str) -> bool:
    missing = [n for n in ("torch", name) if importlib.util.find_spec(n) is None]
    if missing:
        print(f"{name} is left out: {' and '.join(missing)} not installed")
    return not missing


def speed(turn: Callable[[], int]) -> float:
    """Views per second of one turn."""
    start = time.perf_counter()
    views = turn()
    return views / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    use_one_core()

    from input_pipeline.stores import open_store

    store = open_store("emoji", image_size=SIZE)
    picks = np.random.default_rng(0).choice(len(store), BATCH, replace=False)
    images = store.read(np.sort(picks))

    turns = {"sp_jax": ours(images)}
    if installed("torchvision"):
        turns["torchvision v2"] = torchvision_v2(images)
    if installed("lightly"):
        turns["lightly"] = lightly(images)
    timed = {name: functools.partial(speed, turn) for name, turn in turns.items()}
    speeds = take_turns(timed, args.rounds, warm_up=1)  # which compiles

    columns = ("pipeline", "views/s on one core", "range", "sp_jax is faster by")
    print(table_head(columns))
    report = {}
    for name, values in speeds.items():
        pairs = zip(speeds["sp_jax"], values, strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
        print(table_row((name, *spread(values, ".0f"), f"{ratio:.1f} x")))
        median, low, high = statistics.median(values), min(values), max(values)
        report[name] = {"median": median, "min": low, "max": high, "ratio": ratio}
    print(json.dumps({"benchmark": "augment", "batch": BATCH, "views_per_s": report}))


if __name__ == "__main__":
    main()
