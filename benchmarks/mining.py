"""What finds right pairs without labels, lever by lever; and a million features.

    python -m benchmarks.mining --store=emoji --split=pretrain \
        --checkpoints=runs/ap1,runs/ap2,runs/ap3
    python -m benchmarks.mining --images=1280000 --width=384

First: each lever alone, on encoders of several seeds: how many mutual nearest neighbours are
pairs (at most two an image, near-duplicates left out), which share of them has one label, and
how many that are. The labels are for counting only.

Second: made-up features, normal around as many centres as ImageNet has classes: time and
memory of `mine_pairs --approximate` behind the encoder, and which share of the true neighbours
it finds.
"""

import argparse
import functools
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np

from benchmarks.common import append_json, table_head, table_row
from input_pipeline.mining import approximate, mutual_neighbours
from input_pipeline.mining.features import find_features
from input_pipeline.mining.levels import find_levels
from input_pipeline.mining.whiten import whitening
from input_pipeline.pairs import summary
from input_pipeline.stores import ImageStore, open_store
from sp_jax.features import normalize

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]  # First, second and score.


def mutual(features: np.ndarray, groups: np.ndarray, k: int) -> Pairs:
    """Pairs by cosine."""
    from sp_jax.neighbours import nearest_others

    return mutual_neighbours.mutual_pairs(*nearest_others(features, k, groups))


def without_hubs(features: np.ndarray, groups: np.ndarray, k: int) -> Pairs:
    """Pairs by 2 cos(x, y) - r(x) - r(y), r the mean cosine of an image with its k nearest.

    CSLS, https://arxiv.org/abs/1710.04087, of the 10 k nearest by cosine.
    """
    from sp_jax.neighbours import nearest_others

    near, cosine = nearest_others(features, 10 * k, groups)
    radius = np.where(np.isfinite(cosine[:, :k]), cosine[:, :k], 0).mean(axis=1)
    scaled = 2 * cosine - radius[:, None] - radius[near]
    best = np.argsort(-scaled, axis=1, kind="stable")[:, :k]
    near, scaled = (np.take_along_axis(x, best, 1) for x in (near, scaled))
    return mutual_neighbours.mutual_pairs(near, scaled, band=(-np.inf, np.inf))


def agreed(one: Pairs, other: Pairs) -> Pairs:
    """The pairs that another encoder finds, too."""
    found = set(zip(*(x.tolist() for x in other[:2]), strict=True))
    pairs = zip(*(x.tolist() for x in one[:2]), strict=True)
    kept = np.array([pair in found for pair in pairs])
    return tuple(x[kept] for x in one)


def white(features: np.ndarray) -> np.ndarray:
    """Whitened features of length 1."""
    mean, matrix = whitening(features)
    return normalize((features - mean) @ matrix)


def count_right(
    store: ImageStore, pairs: Pairs, best: float = 1.0
) -> tuple[int, float, int]:
    """Of the best of the pairs that are kept: how many, the share that is right, and those."""
    copies = summary.near_duplicates(store, *pairs[:2])
    first, second = (x[~copies] for x in pairs[:2])
    taken = np.flatnonzero(mutual_neighbours.limit_uses(first, second, 2))
    taken = taken[: int(np.ceil(best * len(taken)))]
    same = store.labels[first[taken]] == store.labels[second[taken]]
    return len(taken), float(same.mean()), int(same.sum())


def measure_levers(store: ImageStore, checkpoints: list[str]) -> dict[str, list]:
    """Pairs, precision and right pairs by lever, for each encoder."""
    import sp_jax

    groups = np.zeros(len(store), int)
    alone = np.flatnonzero(summary.blank(store, np.arange(len(store))))
    groups[alone] = 1 + np.arange(len(alone))
    backbones = [sp_jax.load(path) for path in checkpoints]
    plain = [find_features(store, path, None)[0] for path in checkpoints]
    levels = [find_levels(backbone, store) for backbone in backbones]
    found: dict[str, list] = {}

    def lever(name: str, make: Callable[[int], Pairs], many: int, best=1.0) -> None:
        found[name] = [count_right(store, make(i), best) for i in range(many)]
        pairs, precision, right = zip(*found[name], strict=True)
        deviation = f" ± {statistics.stdev(precision):.3f}" if many > 1 else ""
        share = f"{statistics.mean(precision):.3f}{deviation}"
        cells = (
            name,
            round(statistics.mean(pairs)),
            share,
            round(statistics.mean(right)),
        )
        print(table_row(cells), flush=True)

    def by(sets: list[np.ndarray], k: int, find=mutual) -> Callable[[int], Pairs]:
        return lambda i: find(sets[i], groups, k)

    every = len(plain)
    white_ones = [white(x) for x in plain]
    standard = [(x - x.mean(0)) / np.maximum(x.std(0), 1e-6) for x in plain]
    beside = functools.partial(np.concatenate, axis=1)
    untrained = [find_levels(backbone.untrained(), store) for backbone in backbones[:1]]
    hand = [find_features(store, None, None)[0]]
    print(table_head(["lever", "pairs", "precision", "right pairs"]))
    for k in (5, 3, 1):
        lever(f"features, {k} neighbours", by(plain, k), every)
    lever("features, the better half", by(plain, 5), every, 0.5)
    lever("features, the best quarter", by(plain, 5), every, 0.25)
    lever("features without hubs", by(plain, 5, without_hubs), every)
    lever("features, standardised", by(standard, 5), every)
    for k in (5, 3, 1):
        lever(f"features, whitened, {k} neighbours", by(white_ones, k), every)
    lever("whitened, without hubs", by(white_ones, 5, without_hubs), every)
    if every > 1:
        of = by(white_ones, 5)
        both = [agreed(of(i), of((i + 1) % every)) for i in range(every)]
        lever("whitened, two encoders agree", lambda i: both[i], every)
        all_of_them = white(beside([normalize(x) for x in plain]))
        lever("whitened, all encoders side by side", by([all_of_them], 5), 1)
    for k in (5, 3, 1):
        lever(f"levels, {k} neighbours", by(levels, k), every)
    if every > 1:
        lever("levels, all encoders side by side", by([beside(levels)], 3), 1)
    lever("levels of an untrained network", by(untrained, 3), 1)
    for k in (5, 3):
        lever(f"descriptor of shapes and colours, {k} neighbours", by(hand, k), 1)
    return found


def measure_size(images: int, width: int, k: int = 5) -> dict[str, float]:
    """Seconds, GB and recall for made-up features."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(1000, width)).astype(np.float32)
    features = rng.normal(size=(images, width)).astype(np.float32)
    features += centres[rng.integers(0, 1000, images)]
    groups = np.zeros(images, int)
    times = {}

    def timed(name: str, work: Callable):
        started = time.perf_counter()
        result = work()
        times[f"{name}, s"] = round(time.perf_counter() - started, 1)
        print(name, times[f"{name}, s"], "s", flush=True)
        return result

    def whiten() -> None:
        nonlocal features
        mean, matrix = whitening(features)
        features -= mean
        features = features @ matrix

    timed("whitening", whiten)
    found = timed("neighbours", lambda: approximate.nearest_others(features, k, groups))
    pairs = timed("mutual pairs", lambda: mutual_neighbours.mutual_pairs(*found))
    taken = timed("uses", lambda: mutual_neighbours.limit_uses(*pairs[:2], 2))
    recall = timed("recall", lambda: approximate.recall(features, found[0], groups))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {**times, "pairs": int(taken.sum()), "recall": recall, "peak, GB": peak}


def main() -> None:
    """Print the table, or the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--store", default="emoji")
    parser.add_argument("--split", default="pretrain")
    parser.add_argument("--checkpoints", help="runs on augmentation pairs, with commas")
    parser.add_argument("--images", type=int, help="made-up features of so many images")
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--out", help="JSON lines to append to")
    options = parser.parse_args()
    if options.images:
        result = measure_size(options.images, options.width)
        for name, value in result.items():
            print(name, value)
    elif options.checkpoints:
        store = open_store(options.store, split=options.split)
        result = measure_levers(store, options.checkpoints.split(","))
    else:
        parser.error("give --checkpoints or --images")
    append_json(options.out, {**vars(options), "result": result})


if __name__ == "__main__":
    main()
