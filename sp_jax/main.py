"""Train a method on pairs of images, from a config file.

    python -m sp_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

Any value of the config can be changed on the command line, as in
`--config.data.pairing=augmented`. A workdir that holds a checkpoint is resumed.
"""

import contextlib
import logging
import pathlib

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from sp_jax import siblings as siblings  # the user may have an eval.py

# isort: split
from eval.during import make_evaluations
from eval.plots.first_batch import draw_first_batch
from eval.results import versions
from input_pipeline.pairs import resident, stream
from input_pipeline.pairs.training import TrainingPairs, keep_pairs, open_pairs
from sp_jax import distributed, program, progress, registry, validate
from sp_jax.errors import UserError
from sp_jax.methods import RunSize
from sp_jax.recipe import Recipe, make_recipe
from sp_jax.sharding import make_mesh, replicated
from sp_jax.train.feed import ResidentFeed, StreamedFeed, steps_per_call
from sp_jax.train.loop import fit
from sp_jax.train.step import init_state, make_step
from sp_jax.train.workdir import claim_workdir


def run(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Check everything, then train. See `sp_jax/config.py` for the config.

    Raises:
        UserError: the config, the data or the folder does not fit.
        NonFiniteError: the loss became infinite or not a number.
    """
    # Is the config sound, and are its images there?
    plain = config.to_dict()
    validate.check_training(plain)
    validate.check_devices(
        config.batch_size,
        jax.device_count(),
        config.model.get("chunks", 1),
        config.fsdp,
    )
    pairs = open_pairs(config)
    run_size = _run_size(config, pairs)
    # Asked now, while all of the device's memory is free.
    placement, reason = resident.place(config.data.placement, pairs.shown)

    # What is trained, and what is measured meanwhile?
    recipe = validate.or_user_error(make_recipe, plain, run_size)
    if recipe.method.needs_labels and np.all(pairs.table.label < 0):
        raise UserError(
            f"{config.method} learns from labels, and no pair has one: use another method, "
            "or images whose classes are known (docs/data.md)."
        )
    evaluations = make_evaluations(config, recipe, workdir, run_size.steps_per_epoch)
    distributed.check_equal({"config": plain, "pairs": pairs.table.digest})
    meta = {
        "config": plain,
        "run": run_size._asdict(),
        "pairs": {"digest": pairs.table.digest, "store": pairs.table.fingerprint},
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
            state = init_state(recipe, config.seed, mesh)
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


def _run_size(config: ConfigDict, pairs: TrainingPairs) -> RunSize:
    """How long the run is, in steps."""
    per_epoch = pairs.sampler.steps_per_epoch
    total_steps = max(1, round(config.epochs * per_epoch))
    if total_steps >= 2**31:
        raise UserError(
            f"config.epochs={config.epochs:g} are {total_steps} steps, too many to count: "
            "use fewer."
        )
    return RunSize(total_steps, per_epoch, config.batch_size, len(pairs.shown))


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
    dataset = stream.make_dataset(
        pairs.shown, pairs.sampler, jax.process_index(), jax.process_count()
    )
    data = config.data
    return StreamedFeed(
        step,
        lambda first: stream.iterate(
            dataset, first, run_size.total_steps, data.prefetch, data.workers
        ),
        mesh,
    )


if __name__ == "__main__":
    program.main(run, "configs/quickstart.py")
