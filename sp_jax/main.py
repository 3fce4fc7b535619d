"""Train a method on pairs of images, from a config file.

    python -m sp_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

Any value of the config can be changed on the command line, as in
`--config.data.pairing=augmented`. A workdir that holds a checkpoint is resumed.
"""

import functools
import logging
import os
import pathlib
import sys
import traceback
from collections.abc import Callable

import jax
from absl import app, flags
from ml_collections import ConfigDict, config_flags

import eval as evaluators
from configs import common
from eval.features import Extractor
from eval.pictures import save_views
from eval.results import versions, write_result
from input_pipeline import pairing, pairs, resident, store, stream
from input_pipeline.errors import UserError
from input_pipeline.sampling import Sampler
from sp_jax import distributed, validate, xla_flags
from sp_jax.augment import make_views
from sp_jax.methods import Run
from sp_jax.recipe import Recipe, make_optimizer, make_recipe
from sp_jax.train.feed import Resident, Streamed, steps_per_call
from sp_jax.train.loop import Evaluation, NonFiniteLossError, Settings, fit
from sp_jax.train.mesh import make_mesh, replicated
from sp_jax.train.step import init_state, make_observe_step, make_step

# Options of a method, a backbone or an evaluator that the file does not name can be given
# on the command line too; `validate.check_keys` refuses every other new key.
_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Path of a config file.",
    lock_config=False,
    accept_new_attributes=True,
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run. Default: runs/ and the config file's name."
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "One of several processes; SLURM, Kubernetes, MPI or a TPU tells which.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "One of several processes: HOST:PORT of process 0, the same for all. Needs --processes "
    "and --process.",
)
_PROCESSES = flags.DEFINE_integer("processes", None, "Number of processes.", 1)
_PROCESS = flags.DEFINE_integer("process", None, "Number of this process, from 0.", 0)


def run(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Check everything, then train. See `configs/common.py` for the config.

    Args:
        config: a complete config.
        workdir: the run's folder; a run in it goes on from its newest checkpoint.

    Raises:
        UserError: the config, the data or the folder does not fit.
        NonFiniteLossError: the loss became infinite or not a number.
    """
    plain = config.to_dict()
    validate.check_keys(plain, common.get_config().to_dict())
    validate.check_values(plain)
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
    lengths = Run(total_steps, per_epoch, config.batch_size, len(shown))
    recipe = _or_user_error(make_recipe, plain, lengths)
    optimizer = _or_user_error(make_optimizer, plain, lengths)
    evaluations = _make_evaluations(config, recipe, workdir, per_epoch)

    distributed.check_equal({"config": plain, "pairs": table.digest})
    first = jax.process_index() == 0
    meta = {
        "config": plain,
        "run": lengths._asdict(),
        "pairs": {"digest": table.digest, "store": table.fingerprint},
        "versions": versions(),
    }
    if first:
        validate.claim_workdir(workdir, plain)
        _save_pairs(workdir, table, images)
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
    settings = Settings(
        total_steps=total_steps,
        steps_per_epoch=per_epoch,
        images_per_step=config.batch_size * len(recipe.views),
        log_every=config.log_every,
        save_every=config.checkpoint.every,
        keep_last=config.checkpoint.keep_last,
        keep_every=config.checkpoint.keep_every,
        profile_first_step=config.profile.first_step,
        profile_steps=config.profile.steps,
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
    workdir: pathlib.Path, table: pairs.PairTable, images: store.ImageStore
) -> None:
    """Write pairs.csv, or check that a run that goes on still has the same pairs."""
    path = workdir / "pairs.csv"
    before = path.read_bytes() if path.is_file() else None
    new = workdir / ".pairs.csv"
    pairs.save_table(new, table, images)
    if before is not None and before != new.read_bytes():
        new.unlink()
        raise UserError(
            f"The pairs or their images changed since the run in {workdir} started "
            "(see its pairs.csv): use another --workdir, or restore them."
        )
    os.replace(new, path)


def _or_user_error(make: Callable, *args):
    """The library raises ValueError for a bad value; here that is the config's fault."""
    try:
        return make(*args)
    except (ValueError, TypeError) as error:
        raise UserError(f"The config does not fit: {error}") from error


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

    def measure(name, evaluate, protocol, state, step):
        result = evaluate(extractor(state, step), step)
        if jax.process_index() == 0:
            write_result(workdir, name, result, protocol=protocol, step=step)
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
            module = evaluators.get(kind)
            evaluate = module.create(**options)
            protocol = module.describe(**options)
        except UserError as error:
            raise UserError(f"config.evals.{name}: {error}") from error
        evaluations.append(
            Evaluation(
                functools.partial(measure, name, evaluate, protocol),
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


def main(argv: list[str]) -> int:
    """Run with the parsed flags; 2 for a mistake of the user, 1 for a diverged run."""
    if len(argv) > 1:
        print(
            f"error: unknown argument {argv[1]!r}: flags start with --.",
            file=sys.stderr,
        )
        return 2
    # absl's own logger stays at warnings: Orbax reports every read and write there.
    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(logging.WARNING)
    logging.getLogger("jax").setLevel(logging.WARNING)
    name = pathlib.Path(flags.FLAGS["config"].config_filename).stem
    workdir = pathlib.Path(_WORKDIR.value or pathlib.Path("runs") / name).absolute()
    several = (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    words = None
    try:
        if _DISTRIBUTED.value or several != (None, None, None):
            words = distributed.join(_DISTRIBUTED.value, *several)
            words.set(
                f"Process {jax.process_index()} of {jax.process_count()} ended in the "
                "middle of the run: it was killed, or it lost another process (see above, "
                "and the logs of the others). Start all of them again as before: the run "
                f"in {workdir} goes on from its newest checkpoint."
            )
        else:
            distributed.warn_if_alone()
        run(_CONFIG.value, workdir)
        code = 0
    except (UserError, NonFiniteLossError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2 if isinstance(error, UserError) else 1
    except Exception:
        if words is None:
            raise
        traceback.print_exc()
        distributed.leave(1)
    if words:
        words.set("")
        if code:
            distributed.leave(code)
    return code


def parse_flags(argv: list[str]) -> list[str]:
    """Parse the command line; one sentence and exit code 2 where it is wrong."""
    try:
        if not any("help" in arg for arg in argv):
            _check_config_file(argv)
        return flags.FLAGS(argv)
    except (UserError, flags.Error) as error:
        message = str(error)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # ml_collections: an unknown key, or a value of the wrong type.
        message = f"The config is wrong: {' '.join(str(error).split())}"
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _check_config_file(argv: list[str]) -> None:
    """ml_collections reports a missing file late, and with a traceback."""
    for arg, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, path = arg.lstrip("-").partition("=")
        if arg.startswith("-") and name == "config":
            path = (path if equals else following).partition(":")[0]
            if not os.path.isfile(path):
                raise UserError(f"There is no config file {path!r}.")
            return
    raise UserError("Give a config file, such as --config=configs/quickstart.py.")


def cli() -> None:
    """Entry point of `python -m sp_jax.main`."""
    # Compiled programs are kept between runs: a resumed run starts in seconds.
    cache = os.path.join(os.path.expanduser("~"), ".cache", "sp_jax", "xla")
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", cache)
    xla_flags.set_cpu_flags()
    app.run(main, flags_parser=parse_flags)


if __name__ == "__main__":
    cli()
