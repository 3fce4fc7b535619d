"""Check every recipe of a study completely before the first run."""

import contextlib
import functools
import hashlib
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from eval.detection.train import open_images
from eval.study.images import open_evaluator, prepared_for
from eval.study.plan import DETECTION, OF_RUN, Job, Study, config_of, given_in
from eval.study.runner import last_words
from eval.training import Training, open_training
from sp_jax import progress
from sp_jax.config import load_config
from sp_jax.errors import UserError
from sp_jax.json_file import read_json
from sp_jax.train.checkpoint import find_steps, read_meta
from sp_jax.train.workdir import check_same_run


def check_study(
    study: Study, jobs: Sequence[Job], pool: pathlib.Path, devices: int = 1
) -> dict[str, str]:
    """Open everything that the runs and their evaluations will open, like `sp_jax.main`.

    The run of the first seed is checked for each arm. A table of pairs that a program writes
    before the run is written for the check, too; all images are used if it needs another run.

    Args:
        study: as `plan.read_study` gives it.
        jobs: its runs.
        pool: folder of all runs.
        devices: number of devices that a run will have.

    Returns:
        The protocol of each evaluation.

    Raises:
        UserError: a file, a key, a store or an option is wrong, or they do not fit.
    """
    protocols: dict[str, str] = {}
    measured = []  # the evaluations that the runs of each arm make themselves
    frozen = {x: y for x, y in study["evaluations"].items() if y["type"] != DETECTION}

    def open_evaluations(prepared: Mapping[str, Any]) -> None:
        for name, options in frozen.items():
            with _naming(f"evaluations.{name}"):
                protocol = open_evaluator(prepared, options).protocol
            protocols.setdefault(name, protocol)

    with tempfile.TemporaryDirectory() as scratch:
        prepare = functools.cache(functools.partial(_prepare, pathlib.Path(scratch)))
        trained = [job for job in jobs if study["arms"][job.arm]["config"]]
        firsts = [job for job in trained if job.seed == study["seeds"][0]]
        for job in progress.track(firsts, "checking the study", "arms"):
            arm = study["arms"][job.arm]
            with _naming(f"arms.{job.arm}"):
                config = config_of(study, arm)
                config.seed = job.seed
                if "{" in config.init:  # of another run
                    config.init = ""
                if "{" in config.data.pairs:
                    config.data.pairs = _find_table(
                        config.data.pairs, job, pool, prepare
                    )
                    if not config.data.pairs:
                        config.data.pairing = "augmented"
                opened = open_training(config, pool / job.folder, devices)
            seeds = [other for other in trained if other.arm == job.arm]
            check_made(study, seeds, pool, opened)
            measured.append(set(config.evals))
            open_evaluations(prepared_for(study, arm))
    for arm in study["arms"].values():
        if arm["checkpoint"]:
            open_evaluations(prepared_for(study, arm))
    for name in study["evaluations"].keys() - frozen.keys():
        with _naming(f"evaluations.{name}"):
            protocols[name] = _check_detection(study["evaluations"][name], devices)
    _check_measures(study, set(protocols), measured)
    return protocols


def check_made(
    study: Study, jobs: Sequence[Job], pool: pathlib.Path, opened: Training
) -> None:
    """Check that the runs of an arm that are there are of its recipe and images.

    A run's folder is named by the path of its recipe, so it stays if the recipe's content
    changes.

    Args:
        study: as `plan.read_study` gives it.
        jobs: the runs of one arm.
        pool: folder of all runs.
        opened: the training of one of them.

    Raises:
        UserError: a run is of another recipe, images or table of pairs.
    """
    record = opened.pairs.table.info()
    for job in jobs:
        folder = pool / job.folder
        if not (folder / "config.json").is_file():
            continue
        before = read_json(folder / "config.json")
        config = config_of(study, study["arms"][job.arm])
        config.seed = job.seed
        now = json.loads(json.dumps(config.to_dict()))
        now |= {name: before[name] for name in opened.start.record.keys() & before}
        if "{" not in config.init:
            now |= opened.start.record
        check_same_run(before, now, folder)
        if not (steps := find_steps(folder / "checkpoints")):
            continue  # the training itself compares the pairs
        saved = read_meta(folder / "checkpoints" / str(steps[0])).get("pairs", {})
        of_file = config.data.pairs and "{" not in config.data.pairs
        for name in ("store", *["digest"] * bool(of_file)):
            if saved.get(name, record[name]) != record[name]:
                raise UserError(
                    f"The pairs or their images changed since the run in {folder} was made: "
                    "use another --workdir, or restore them."
                )


@contextlib.contextmanager
def _naming(where: str) -> Iterator[None]:
    """Add the place in the study to an error."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"study.{where}: {error}") from error


def _find_table(
    pattern: str,
    job: Job,
    pool: pathlib.Path,
    prepare: Callable[[tuple[tuple[str, ...], ...], int], pathlib.Path],
) -> str:
    """The table that a run's preparation writes; "" if it needs another run's checkpoint."""
    before = itertools.takewhile(lambda x: x.name != "train", job.commands)
    words = tuple(command.words for command in before)
    folder = pool / job.folder

    def path() -> pathlib.Path:
        places = {"folder": folder, "after": pool / job.after, "seed": job.seed}
        return pathlib.Path(pattern.format(**places))

    if not path().is_file() and any("{after}" in word for one in words for word in one):
        return ""
    if not path().is_file():
        folder = prepare(words, job.seed)
    if not path().is_file():
        raise UserError(
            f"there is no table of pairs {pattern!r}, and no command makes it."
        )
    return str(path())


def _prepare(
    scratch: pathlib.Path, commands: tuple[tuple[str, ...], ...], seed: int
) -> pathlib.Path:
    """Run the programs that come before a training, in their own folder."""
    folder = scratch / hashlib.sha256(repr(commands).encode()).hexdigest()
    folder.mkdir()
    for number, words in enumerate(commands):
        filled = [word.format(folder=folder, after="", seed=seed) for word in words]
        log = folder / f"{number}.log"
        with open(log, "w", encoding="utf-8") as file:
            words = [sys.executable, "-m", *filled]
            code = subprocess.run(words, stdout=file, stderr=file, check=False)
        if code.returncode:
            raise UserError(f"{filled[0]}: {last_words(log)}")
    return folder


def _check_detection(options: Mapping[str, Any], devices: int) -> str:
    """Open the images of a detection; returns its protocol."""
    config = load_config(options["config"])
    with config.unlocked():
        own = {name: x for name, x in options.items() if name not in ("type", "config")}
        config.update_from_flattened_dict(given_in(own))
    open_images(config, devices)
    return f"detection as {options['config']}"


def _check_measures(
    study: Study, evaluations: set[str], measured: Sequence[set[str]]
) -> None:
    """Check that every run measures what the study reads."""
    known = evaluations.union(set.intersection(*measured) if measured else ())
    for title, measure in study["measures"].items():
        name, _, key = measure["of"].partition("/")
        if name == "run" and key not in OF_RUN:
            raise UserError(
                f"study.measures.{title}: a run has no {key!r}, but {', '.join(OF_RUN)}."
            )
        if name not in ("run", *known):
            raise UserError(
                f"study.measures.{title}: not every run measures {name!r}, but "
                f"{', '.join(sorted(known)) or 'nothing'}."
            )
