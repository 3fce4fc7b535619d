"""Train a method on pairs of images, from a config file.

    python -m sp_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

Any value of the config can be changed on the command line, as in
`--config.data.pairing=augmented`. A workdir that holds a checkpoint is resumed.
"""

import contextlib
import functools
import logging
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from sp_jax.siblings import FOLDER

sys.path.insert(0, FOLDER)  # the user may have an eval.py

import eval as evaluators
from eval.pictures import save_views
from eval.results import identify, versions, write_result
from input_pipeline import pairs
from input_pipeline.pairs import pairing, resident, stream
from input_pipeline.pairs.sampling import Sampler
from input_pipeline.stores import store
from sp_jax import distributed, program, registry, validate
from sp_jax.augment import make_views
from sp_jax.errors import UserError
from sp_jax.features import Extractor
from sp_jax.methods import Run
from sp_jax.recipe import Recipe, make_optimizer, make_recipe
from sp_jax.sharding import make_mesh, replicated
from sp_jax.train.feed import Resident, Streamed, steps_per_call
from sp_jax.train.loop import Evaluation, Settings, fit
from sp_jax.train.step import init_state, make_observe_step, make_step
from sp_jax.train.workdir import claim_workdir


def run(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Check everything, then train. See `sp_jax/config.py` for the config.

    Args:
        config: a complete config.
        workdir: the run's folder; a run in it goes on from its newest checkpoint.

    Raises:
        UserError: the config, the data or the folder does not fit.
        NonFiniteLossError: the loss became infinite or not a number.
    """
    plain = config.to_dict()
    validate.check_training(plain)
    validate.check_devices(
        config.batch_size,
        jax.device_count(),
        config.model.get("chunks", 1),
        config.fsdp,
    )

    data = config.data
    images = store.open_data(data)
    if data.pairs:
        table = pairs.load_table(data.pairs, images)
    elif data.pairing == "augmented" and (images.labels < 0).all():
        table = pairing.own_pairs(images)
    else:
        table = pairing.semantic_pairs(images, rounds=data.rounds, seed=config.seed)
    shown, shown_table = pairing.only_shown(images, table, data.pairing)
    sampler = Sampler(
        shown_table,
        config.batch_size,
        config.seed,
        data.pairing,
        data.semantic_fraction,
    )
    per_epoch = sampler.steps_per_epoch
    dataset = stream.make_dataset(
        shown, sampler, jax.process_index(), jax.process_count()
    )
    placement, reason = resident.place(data.placement, shown)
    total_steps = max(1, round(config.epochs * per_epoch))
    if total_steps >= 2**31:
        raise UserError(
            f"config.epochs={config.epochs:g} are {total_steps} steps, too many to count: "
            "use fewer."
        )
    lengths = Run(total_steps, per_epoch, config.batch_size, len(shown))
    recipe = validate.or_user_error(make_recipe, plain, lengths)
    if recipe.method.needs_labels and (table.label < 0).all():
        raise UserError(
            f"{config.method} learns from labels, and no pair has one: use another method, "
            "or images whose classes are known (docs/data.md)."
        )
    optimizer = validate.or_user_error(make_optimizer, plain, lengths)
    evaluations = _make_evaluations(config, recipe, workdir, per_epoch)

    distributed.check_equal({"config": plain, "pairs": table.digest})
    first = jax.process_index() == 0
    meta = {
        "config": plain,
        "run": lengths._asdict(),
        "pairs": {"digest": table.digest, "store": table.fingerprint},
        "versions": versions(),
        "modules": registry.folders([config.method, config.model.name]),
    }
    # Of several processes the first one writes.
    with claim_workdir(workdir, plain) if first else contextlib.nullcontext() as saved:
        if first:
            _save_pairs(workdir, table, images, saved)
        mesh = make_mesh(fsdp=config.fsdp)
        state = init_state(recipe.method, optimizer.tx, recipe.views, config.seed, mesh)
        if first and not (workdir / "views.png").exists():
            _draw_first_batch(dataset[0]["image"], recipe, workdir)
        step = make_step(
            recipe.method, optimizer.tx, optimizer.schedule, recipe.views, mesh
        )
        if placement == "device":
            pixels = resident.Resident(shown, sampler, replicated(mesh))
            feed = Resident(step, pixels, mesh, steps_per_call(config.steps_per_call))
        else:
            feed = Streamed(
                step,
                lambda first: stream.iterate(
                    dataset, first, total_steps, data.prefetch, data.workers
                ),
                mesh,
            )
        logging.info("Pixels: %s (%s).", placement, reason)
        settings = Settings.from_config(
            config,
            total_steps=total_steps,
            steps_per_epoch=per_epoch,
            images_per_step=config.batch_size * len(recipe.views),
        )
        logging.info(
            "%s on %s: %d pairs (%s), %d steps of %d.",
            config.method,
            f"{jax.device_count()} x {jax.devices()[0].device_kind}",
            len(table),
            data.pairing,
            total_steps,
            config.batch_size,
        )
        fit(
            workdir,
            state,
            feed,
            evaluations,
            mesh,
            settings,
            meta,
            make_observe_step(recipe.method, recipe.views, mesh),
        )


def _save_pairs(
    workdir: pathlib.Path,
    table: pairs.PairTable,
    images: store.ImageStore,
    saved: Mapping[str, Any] | None,
) -> None:
    """Write pairs.csv, or check that a run that goes on still has the same pairs.

    Where the images lie may have changed: they and the pairs are known by fingerprints.
    """
    path, new = workdir / "pairs.csv", workdir / ".pairs.csv"
    pairs.save_table(new, table, images)
    try:
        if path.is_file():
            same = _without_places(path) == _without_places(new)
        else:
            digest = (saved or {}).get("pairs", {}).get("digest", table.digest)
            same = digest == table.digest
        if not same:
            raise UserError(
                f"The pairs or their images changed since the run in {workdir} started "
                "(see its pairs.csv): use another --workdir, or restore them."
            )
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def _without_places(path: pathlib.Path) -> list[bytes]:
    """The lines of a table but for those that say where it and its images came from."""
    lines = path.read_bytes().split(b"\n")
    return [line for line in lines if not line.startswith((b"# store=", b"# source="))]


def _make_evaluations(
    config: ConfigDict, recipe: Recipe, workdir: pathlib.Path, steps_per_epoch: int
) -> list[Evaluation]:
    """Open every evaluator's data now, so that a mistake shows before training."""
    shared: dict[int, Extractor] = {}

    def extractor(state, step):
        # All evaluators of a step share its features.
        if step not in shared:
            shared.clear()
            backbone = recipe.freeze(state.params, state.method_state, step=step)
            shared[step] = Extractor(backbone)
        return shared[step]

    def measure(name, evaluate, state, step):
        features = extractor(state, step)
        result = evaluate(features, step)
        about = identify(evaluate, features, step)
        if jax.process_index() == 0:
            write_result(workdir, name, result, **about)
        return {f"{name}/{key}": value for key, value in result.items()}

    evaluations = []
    for name, options in config.evals.items():
        options = options.to_dict()
        kind = options.pop("type")
        every_epochs = options.pop("every_epochs", 0)
        for option in ("image_size", "resize", "max_skipped"):
            options.setdefault(option, config.data[option])
        options.setdefault("data_dir", config.data.dir or None)
        try:
            evaluate = evaluators.get(kind).create(**options)
        except UserError as error:
            raise UserError(f"config.evals.{name}: {error}") from error
        evaluations.append(
            Evaluation(
                functools.partial(measure, name, evaluate),
                round(every_epochs * steps_per_epoch),
            )
        )
    return evaluations


def _draw_first_batch(images, recipe: Recipe, workdir: pathlib.Path) -> None:
    """Draw views.png: the pairs and views of the first batch, as a person checks them."""
    images = images[:8]
    views = jax.jit(lambda key, x: make_views(key, x, recipe.views)[0])
    save_views(
        workdir / "views.png",
        images,
        views(jax.random.key(0), images),
        recipe.views[0].mean,
        recipe.views[0].std,
    )


if __name__ == "__main__":
    program.main(run, "configs/quickstart.py")
