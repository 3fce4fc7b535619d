"""The stream of batches: a Grain dataset whose element `step` is the batch of a step.

The step number is the whole random state: the order of epoch e is a permutation drawn
from (seed, e), the coins of mixed pairs are drawn from (seed, step). So a run resumes
by starting at a step, on any number of processes.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any, Literal

import grain
import numpy as np
from absl import flags

from input_pipeline.errors import UserError
from input_pipeline.pairs import PairTable, check_table
from input_pipeline.store import ImageStore

Pairing = Literal["semantic", "augmented", "mixed"]
Batch = dict[str, np.ndarray]

_ORDER, _COIN = 0, 1  # Keep the two uses of a seed apart.


def steps_per_epoch(table: PairTable, batch_size: int) -> int:
    """P // batch_size: the remainder of each epoch's order is dropped.

    Raises:
      UserError: batch_size is not positive, or exceeds the number of pairs.
    """
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, not {batch_size}.")
    if batch_size > len(table):
        raise UserError(
            f"batch_size {batch_size} exceeds the {len(table)} pairs of the table: "
            "choose a smaller batch, or make more pairs (rounds)."
        )
    return len(table) // batch_size


def index_batches(
    table: PairTable,
    *,
    batch_size: int,
    seed: int,
    pairing: Pairing = "semantic",
    semantic_fraction: float = 0.5,
    process_index: int = 0,
    process_count: int = 1,
) -> Callable[[int], Batch]:
    """The batches without pixels: a pure function step -> {"index", "label"}.

    For whoever holds the pixels elsewhere (on the accelerator); `make_dataset` adds
    the pixels of the same batches.

    Args:
      table: P pairs.
      batch_size: pairs of the global batch B, over all processes.
      seed: non-negative; with the step number it determines the batch.
      pairing: "semantic": both images of each pair, V = 2. "augmented": the first
        image only, V = 1. "mixed": a coin for each pair of each step; where it says
        augmented the second image is the first again, V = 2.
      semantic_fraction: probability that "mixed" keeps a pair semantic.
      process_index: this process: rows [p B/n, (p+1) B/n) of the global batch.
      process_count: number of processes n.

    Returns:
      A function of step >= 0 (without end) to "index" int32 [B/n, V] and "label"
      int32 [B/n].

    Raises:
      UserError: an argument is out of range.
    """
    per_epoch = steps_per_epoch(table, batch_size)
    if pairing not in ("semantic", "augmented", "mixed"):
        raise UserError(
            f"pairing must be semantic, augmented or mixed, not {pairing!r}."
        )
    if not 0.0 <= semantic_fraction <= 1.0:
        raise UserError(
            f"semantic_fraction must be between 0 and 1, not {semantic_fraction}."
        )
    if seed < 0:
        raise UserError(f"seed must not be negative, but is {seed}.")
    if not 0 <= process_index < process_count:
        raise UserError(f"There is no process {process_index} of {process_count}.")
    if batch_size % process_count:
        raise UserError(
            f"batch_size {batch_size} cannot be shared by {process_count} processes: "
            "choose a multiple."
        )
    share = batch_size // process_count
    mine = slice(process_index * share, (process_index + 1) * share)
    order = functools.partial(_order, seed, len(table))

    def batch(step: int) -> Batch:
        epoch, place = divmod(step, per_epoch)
        start = place * batch_size
        pairs = order(epoch)[start : start + batch_size][mine]
        first, second = table.first[pairs], table.second[pairs]
        if pairing == "augmented":
            index = first[:, None]
        else:
            if pairing == "mixed":
                coin = _raw_bits(seed, _COIN, step, batch_size)[mine]
                keep = (coin >> np.uint64(11)) * 2.0**-53 < semantic_fraction
                second = np.where(keep, second, first)
            index = np.stack([first, second], axis=1)
        return {"index": index, "label": table.label[pairs]}

    return batch


# Two epochs: prefetching runs ahead over the border.
@functools.lru_cache(maxsize=2)
def _order(seed: int, count: int, epoch: int) -> np.ndarray:
    """The pairs of an epoch; a worker process keeps its own."""
    return np.argsort(_raw_bits(seed, _ORDER, epoch, count), kind="stable")


def make_dataset(
    store: ImageStore,
    table: PairTable,
    *,
    batch_size: int,
    seed: int,
    pairing: Pairing = "semantic",
    semantic_fraction: float = 0.5,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.MapDataset:
    """The stream of batches: `dataset[step]` is this process's share of that step.

    Arguments and errors are those of `index_batches`; the table must have been made
    for the store.

    Returns:
      An endless dataset of {"image": uint8 [B/n, V, S, S, 3], "index": int32
      [B/n, V], "label": int32 [B/n]}. Each element is newly allocated.
    """
    check_table(table, store)
    batch = index_batches(
        table,
        batch_size=batch_size,
        seed=seed,
        pairing=pairing,
        semantic_fraction=semantic_fraction,
        process_index=process_index,
        process_count=process_count,
    )

    images = store.images  # Worker processes get this, and not the names of all images.

    def read(step: int) -> Batch:
        indices = batch(int(step))
        return {"image": images[indices["index"]], **indices}

    # Not MapDataset.shuffle().batch().repeat(), which does reshuffle each epoch:
    # it walks the pipeline once a record, where one indexing operation reads the
    # whole batch four times faster; and its epochs take the seeds seed + e, so the
    # second epoch of seed 0 would be the first of seed 1.
    return grain.MapDataset.range(sys.maxsize).map(read)


def iterate(
    dataset: grain.MapDataset,
    start_step: int,
    total_steps: int,
    prefetch: int = 2,
    workers: int = 0,
) -> Iterator[Any]:
    """Batches of steps start_step .. total_steps - 1, read ahead.

    One thread reads, or several processes do; the batches are the same. They end when the
    iterator is used up, closed or collected.

    Args:
      dataset: from `make_dataset`.
      start_step: first step; that of a run that resumes.
      total_steps: one past the last step.
      prefetch: how many batches to hold ready, of each worker; 0 reads in the calling
        thread.
      workers: processes that read. None are needed for pixels in memory or in a memory
        map; they help where a single reader of ArrayRecord files is too slow.
    """
    options = grain.ReadOptions(
        num_threads=1 if prefetch else 0, prefetch_buffer_size=prefetch
    )
    steps = dataset[start_step:total_steps].to_iter_dataset(options)
    if workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain reads its own, also in a library.
        steps = steps.mp_prefetch(
            grain.multiprocessing.MultiprocessingOptions(
                num_workers=workers, per_worker_buffer_size=max(1, prefetch)
            )
        )
    batches = iter(steps)
    try:
        yield from batches
    finally:
        batches.close()


def _raw_bits(seed: int, use: int, number: int, count: int) -> np.ndarray:
    """uint64 [count] from (seed, use, number).

    Raw bits and a stable sort, because NumPy promises the same bits in every version;
    it does not promise that of its permutations and distributions.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(use, number))
    return np.random.PCG64(sequence).random_raw(count)
