"""The floor of a study: the untrained networks of its runs, with the same seeds.

A training measures its own evaluations before its first step; the study's other evaluations are
measured once for each network and seed.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

import eval as evaluators
from eval.study.numbers import Values, read_number, read_result
from eval.study.plan import (
    DETECTION,
    Command,
    Job,
    Study,
    config_of,
    evaluation_of,
    flags_of,
)
from eval.study.plan import UNTRAINED as NAME
from eval.study.runner import missing
from sp_jax.config import flatten
from sp_jax.train.identity import network_facts


def add_floors(study: Study, jobs: Sequence[Job], pool: pathlib.Path) -> list[Job]:
    """The runs, followed by the jobs that measure their untrained networks.

    Arms with the same architecture and image size share one: that of the first arm. A study
    with an arm of this name has its floor already.
    """
    if NAME in study["arms"]:
        return list(jobs)
    networks: dict[str, str] = {}  # network -> arm
    configs = {}
    for name, arm in study["arms"].items():
        if arm["config"]:
            configs[name] = config = config_of(study, arm)
            facts = network_facts(flatten(config.to_dict()))
            networks.setdefault(json.dumps(facts, sort_keys=True), name)
    floors = []
    for job in jobs:
        if job.arm in networks.values():
            evaluations = _forgotten(study, job, configs[job.arm], pool)
            evaluations |= study["evaluations"]
            label = f"{NAME} as {job.arm}" if len(networks) > 1 else NAME
            floors.append(_make_floor(job, evaluations, label))
    return [*jobs, *floors]


def _forgotten(
    study: Study, job: Job, config: ConfigDict, pool: pathlib.Path
) -> dict[str, dict[str, Any]]:
    """The evaluations of a run's config whose floor an older version did not measure."""
    if missing(job, pool):
        return {}
    names = {measure["of"].partition("/")[0] for measure in study["measures"].values()}
    found = {}
    for name in sorted(names & set(config.evals) - set(study["evaluations"])):
        of_run = study, job, pool / job.folder, name
        if read_result(*of_run, untrained=True) is None:
            found[name] = evaluation_of(config, name)
    return found


def _make_floor(run: Job, evaluations: Mapping[str, Any], label: str) -> Job:
    commands = []
    for title, options in evaluations.items():
        if (kind := options["type"]) != DETECTION:
            own = {name: x for name, x in options.items() if name != "type"}
            words = ("--checkpoint={after}", "--untrained", f"--name={title}")
            program = evaluators.program_of(kind)
            commands.append(Command(title, (program, *words, *flags_of(own))))
    stem, seed = run.folder.rsplit("/", 1)
    folder = f"{stem}_{NAME}/{seed}"
    return Job(run.arm, run.seed, folder, run.folder, tuple(commands), label)


def collect_floors(study: Study, jobs: Sequence[Job], pool: pathlib.Path) -> Values:
    """The measures of all untrained networks: title -> label -> seed -> number.

    Only networks with a measured number are there.
    """
    found: dict[str, dict[str, dict[int, float]]] = {}  # label first
    for job in jobs:
        if not job.label or missing(job, pool):
            continue
        for title, measure in study["measures"].items():
            of_run = study, job, pool / job.after, measure
            number = read_number(*of_run, untrained=True)
            if number is not None:
                of_label = found.setdefault(job.label, {})
                of_label.setdefault(title, {})[job.seed] = number
    return {
        title: {label: one.get(title, {}) for label, one in found.items()}
        for title in study["measures"]
    }
