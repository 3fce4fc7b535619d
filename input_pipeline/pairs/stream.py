"""The stream of batches: a Grain dataset with one batch for each step.

The step number is the whole random state (`sampling`). So a run resumes by starting at a
step, on any number of processes.
"""

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import grain
from absl import flags

from input_pipeline.pairs.host_crops import HostCrops
from input_pipeline.pairs.sampling import Sampler
from input_pipeline.pairs.table import check_table
from input_pipeline.stores import ImageStore
from sp_jax.crops import Crop
from sp_jax.errors import UserError

Batch = dict[str, Any]  # of arrays


def make_dataset(
    store: ImageStore,
    sampler: Sampler,
    process_index: int = 0,
    process_count: int = 1,
    crops: Sequence[Crop] = (),
) -> grain.MapDataset:
    """The stream of batches: `dataset[step]` is this process's share of that step.

    Process p of n reads the rows [p B/n, (p+1) B/n) of the B pairs of the global batch.

    Args:
      store: the images of the sampler's table.
      sampler: draws the pairs.
      process_index: p.
      process_count: n.
      crops: of each view, taken here if the store is coded; otherwise the device takes them.

    Returns:
      An endless dataset of {"image": uint8 [B/n, V, S, S, 3], "index": int32 [B/n, V],
      "label": int32 [B/n]}, or what `HostCrops.read` gives. Each element is newly allocated.

    Raises:
      UserError: the table was made for another store, or the processes cannot share the batch.
    """
    check_table(sampler.table, store)
    mine = share_of(sampler.batch_size, process_index, process_count)
    images = store.images  # Worker processes get this, and not the names of all images.
    host = HostCrops(images, crops, sampler.seed) if store.coded and crops else None

    def read(step: int) -> Batch:
        if host:
            return host.read(int(step), sampler.batch(int(step)), mine)
        batch = {name: x[mine] for name, x in sampler.batch(int(step)).items()}
        return {"image": images[batch["index"]], **batch}

    # Not MapDataset.shuffle().batch().repeat(): it walks the pipeline once a record, where one
    # indexing operation reads the whole batch four times faster; and its epochs take the seeds
    # seed + e, so the second epoch of seed 0 would be the first of seed 1.
    return grain.MapDataset.range(sys.maxsize).map(read)


def share_of(batch_size: int, process_index: int, process_count: int) -> slice:
    """The rows of a global batch that a process reads; UserError if it cannot be shared."""
    if not 0 <= process_index < process_count:
        raise UserError(f"There is no process {process_index} of {process_count}.")
    if batch_size % process_count:
        raise UserError(
            f"batch_size {batch_size} cannot be shared by {process_count} processes: "
            "choose a multiple."
        )
    share = batch_size // process_count
    return slice(process_index * share, (process_index + 1) * share)


def iterate(
    dataset: grain.MapDataset,
    start_step: int,
    total_steps: int,
    prefetch: int = 2,
    workers: int = 0,
) -> Iterator[Any]:
    """Batches of steps start_step .. total_steps - 1, read ahead.

    One thread reads, or several processes do; the batches are the same. They end when the
    iterator is used up, closed or collected. Each worker holds `prefetch` batches ready; 0
    reads in the calling thread. No workers are needed for pixels in memory or in a memory
    map; they help where a single reader of ArrayRecord files is too slow, and JPEG-coded
    images need as many as there are cores.
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
            ),
            worker_init_fn=_end_with_parent,
        )
    batches = iter(steps)
    try:
        yield from batches
    finally:
        batches.close()


def _end_with_parent(index: int, count: int) -> None:
    """End this worker process when the training is killed: it would wait forever."""

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
