"""The images that a study's evaluations read: if they change, a number is measured again."""

import functools
import json
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import eval as evaluators
from eval.cli import images_of
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


def add_images(study: Study, jobs: Sequence[Job]) -> list[Job]:
    """Add to the runs' evaluations the fingerprints of the splits that they read.

    Detection reads its images itself.
    """

    def of(job: Job, command: Command) -> Command:
        options = study["evaluations"].get(command.name, {"type": DETECTION})
        if options["type"] == DETECTION:
            return command
        prepared = prepared_for(study, study["arms"][job.arm])
        return command._replace(images=_read_by(prepared, options))

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
            if result and result.get("images") != _read_by({}, options):
                program = evaluators.program_of(options["type"])
                del options["type"]
                words = ("python", "-m", program, f"--checkpoint={pool / job.folder}")
                again = shlex.join((*words, f"--name={name}", *flags_of(options)))
                found.append(
                    f"{pool / job.folder}/eval/{name}.json was measured on other images than "
                    f"there are now. This measures it again: {again}"
                )
    return found


def prepared_for(study: Study, arm: Mapping[str, Any]) -> Mapping[str, Any]:
    """How images are prepared for an arm's network: as its run's, or as ready weights need.

    Raises:
        UserError: there are no such weights.
    """
    if arm["checkpoint"]:
        return _prepared_for(arm["checkpoint"])
    data = config_of(study, arm).data
    return {"image_size": data.image_size, "resize": data.resize}


_prepared_for = functools.cache(images_of)


def open_evaluator(
    prepared: Mapping[str, Any], options: Mapping[str, Any]
) -> Evaluator:
    """An evaluation of a study, for images that are prepared as `prepared_for` says.

    Raises:
        UserError: its type, its options or its images are wrong.
    """
    return _open(*_key(prepared, options))


def _read_by(prepared: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, str]:
    """The fingerprints of the splits that an evaluation reads."""
    return _fingerprints(*_key(prepared, options))


def _key(prepared: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[str, str]:
    options = {**prepared, **options}
    options.pop("every_epochs", None)
    return options.pop("type"), json.dumps(options, sort_keys=True)


@functools.cache
def _open(kind: str, options: str) -> Evaluator:
    return evaluators.make(kind, json.loads(options))


@functools.cache
def _fingerprints(kind: str, options: str) -> dict[str, str]:
    return _open(kind, options).fingerprints()
