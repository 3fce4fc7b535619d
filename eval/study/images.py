"""The images that a study's evaluations read: if they change, a number is measured again."""

import functools
import json
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import eval as evaluators
from eval.evaluator import Evaluator
from eval.study.numbers import read_result
from eval.study.plan import (
    DETECTION,
    Command,
    Job,
    Study,
    config_of,
    evaluation_of,
    flags_of,
)
from sp_jax.config import get_config


def add_images(study: Study, jobs: Sequence[Job]) -> list[Job]:
    """Add to the runs' evaluations the fingerprints of the splits that they read.

    Images are prepared as those of each run. Detection reads its images itself.
    """

    def of(job: Job, command: Command) -> Command:
        options = study["evaluations"].get(command.name, {"type": DETECTION})
        if options["type"] == DETECTION:
            return command
        arm = study["arms"][job.arm]
        config = config_of(study, arm) if arm["config"] else get_config()
        return command._replace(images=_read_by(config, options))

    commands = [tuple(of(job, command) for command in job.commands) for job in jobs]
    return [x._replace(commands=y) for x, y in zip(jobs, commands, strict=True)]


def find_outdated(study: Study, jobs: Sequence[Job], pool: pathlib.Path) -> list[str]:
    """Sentences on results of the runs' own evaluations whose images have changed since.

    They were measured by the training, which the study does not repeat.
    """
    names = {one["of"].partition("/")[0] for one in study["measures"].values()}
    found = []
    for job in jobs:
        if job.label or not (arm := study["arms"][job.arm])["config"]:
            continue
        config = config_of(study, arm)
        for name in sorted(names & set(config.evals) - set(study["evaluations"])):
            result = read_result(study, job, pool / job.folder, name)
            options = evaluation_of(config, name)
            if result and result.get("images") != _read_by(config, options):
                program = evaluators.program_of(options["type"])
                del options["type"]
                words = ("python", "-m", program, f"--checkpoint={pool / job.folder}")
                again = shlex.join((*words, f"--name={name}", *flags_of(options)))
                found.append(
                    f"{pool / job.folder}/eval/{name}.json was measured on other images than "
                    f"there are now. This measures it again: {again}"
                )
    return found


def open_evaluator(config: Any, options: Mapping[str, Any]) -> Evaluator:
    """An evaluation of a run's config, with images that are prepared as the run's.

    Raises:
        UserError: its type, its options or its images are wrong.
    """
    return _open(*_key(config, options))


def _read_by(config: Any, options: Mapping[str, Any]) -> dict[str, str]:
    """The fingerprints of the splits that an evaluation reads."""
    return _fingerprints(*_key(config, options))


def _key(config: Any, options: Mapping[str, Any]) -> tuple[str, str]:
    data = config.data
    options = {"image_size": data.image_size, "resize": data.resize, **options}
    options.pop("every_epochs", None)
    return options.pop("type"), json.dumps(options, sort_keys=True)


@functools.cache
def _open(kind: str, options: str) -> Evaluator:
    return evaluators.make(kind, json.loads(options))


@functools.cache
def _fingerprints(kind: str, options: str) -> dict[str, str]:
    return _open(kind, options).fingerprints()
