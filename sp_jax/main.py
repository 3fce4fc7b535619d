"""Train a method on pairs of images, from a config file.

    python -m sp_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

Any value of the config can be changed on the command line, as in
`--config.data.pairing=augmented`. A workdir that holds a checkpoint is resumed.
"""

import contextlib
import logging
import pathlib
from collections.abc import Iterator

# First: it reports missing packages, and the user may have an eval.py.
from sp_jax import siblings as siblings

# isort: split
import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from eval.plots.first_batch import draw_first_batch
from eval.training import open_training
from input_pipeline.pairs import resident, stream
from input_pipeline.pairs.training import TrainingPairs, keep_pairs
from sp_jax import distributed, program, progress, registry
from sp_jax.methods import RunSize
from sp_jax.recipe import Recipe
from sp_jax.sharding import make_mesh, replicated
from sp_jax.train.feed import RawBatch, ResidentFeed, StreamedFeed, steps_per_call
from sp_jax.train.loop import fit
from sp_jax.train.step import init_state, make_step
from sp_jax.train.workdir import claim_workdir
from sp_jax.versions import versions


def run(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Check everything, then train. See `sp_jax/config.py` for the config.

    Raises:
        UserError: the config, the data or the folder does not fit.
        NonFiniteError: the loss became infinite or not a number.
    """
    plain = config.to_dict()
    opened = open_training(config, workdir, jax.device_count())
    pairs, run_size, recipe, evaluations, begun = opened
    plain |= begun.record
    # Asked now, while all of the device's memory is free.
    placement, reason = resident.place(config.data.placement, pairs.shown)
    distributed.check_equal({"config": plain, "pairs": pairs.table.digest})
    meta = {
        "config": plain,
        "run": run_size._asdict(),
        "pairs": pairs.table.info(),
        "versions": versions(),
        "modules": registry.folders([config.method, config.model.name]),
    }

    # All is well: the run's folder, of which the first of several processes writes.
    first = jax.process_index() == 0
    with claim_workdir(workdir, plain) if first else contextlib.nullcontext() as saved:
        if first:
            digest = (saved or {}).get("pairs", {}).get("digest")
            keep_pairs(workdir, pairs.table, pairs.images, digest)
            with progress.show("drawing the first batch"):
                draw_first_batch(pairs, recipe, workdir / "views.png")
        mesh = make_mesh(fsdp=config.fsdp)
        with progress.show("making the network"):
            state = init_state(recipe, config.seed, mesh, begun.network)
        feed = _make_feed(config, pairs, recipe, mesh, run_size, placement)
        logging.info("Pixels: %s (%s).", placement, reason)
        logging.info(
            "%s on %s: %d pairs (%s), %d steps of %d.",
            config.method,
            f"{jax.device_count()} x {jax.devices()[0].device_kind}",
            len(pairs.table),
            config.data.pairing,
            run_size.total_steps,
            run_size.batch_size,
        )
        fit(config, workdir, run_size, recipe, state, feed, evaluations, mesh, meta)


def _make_feed(
    config: ConfigDict,
    pairs: TrainingPairs,
    recipe: Recipe,
    mesh: Mesh,
    run_size: RunSize,
    placement: str,
) -> ResidentFeed | StreamedFeed:
    """The compiled step with its batches: from the device's memory, or from the host."""
    step = make_step(recipe, mesh)
    if placement == "device":
        pixels = resident.DevicePixels(pairs.shown, pairs.sampler, replicated(mesh))
        # A call ends at a log line at the latest: more steps would never fit.
        count = min(steps_per_call(config.steps_per_call), config.log_every)
        return ResidentFeed(step, pixels, mesh, count)
    share = jax.process_index(), jax.process_count()
    dataset = stream.make_dataset(pairs.shown, pairs.sampler, *share, recipe.crops)
    data = config.data

    def batches(first: int, end: int = run_size.total_steps) -> Iterator[RawBatch]:
        return stream.iterate(dataset, first, end, data.prefetch, data.workers)

    return StreamedFeed(step, batches, mesh)


if __name__ == "__main__":
    program.main(run, "configs/quickstart.py")
