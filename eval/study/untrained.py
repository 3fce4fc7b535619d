"""The floor of a study: the networks of its runs, of the same seeds, without a step.

A training measures its own evaluations before its first step; what a study measures besides
is measured once for each network and seed.
"""

import json
import pathlib
from collections.abc import Sequence

import eval as evaluators
from eval.study.numbers import Values, read_number
from eval.study.plan import DETECTION, Command, Job, Study, config_of, flags_of
from eval.study.runner import missing

NAME = "untrained"


def add_floors(study: Study, jobs: Sequence[Job]) -> list[Job]:
    """The runs, and behind them what measures their untrained networks.

    Arms with one architecture and images of one size have one: the first of them stands for
    all. A study that has an arm of this name has its floor.
    """
    if NAME in study["arms"]:
        return list(jobs)
    networks: dict[str, str] = {}  # network -> arm
    for name, arm in study["arms"].items():
        if arm["config"]:
            config = config_of(study, arm)
            data = config.data
            sizes = config.image_size, data.image_size, data.resize
            network = json.dumps([config.model.to_dict(), config.dtype, sizes])
            networks.setdefault(network, name)
    hosts = [job for job in jobs if job.arm in networks.values()]
    return [*jobs, *(_make_floor(study, job, len(networks) > 1) for job in hosts)]


def _make_floor(study: Study, run: Job, several: bool) -> Job:
    commands = []
    for title, options in study["evaluations"].items():
        if (kind := options["type"]) != DETECTION:
            own = {name: x for name, x in options.items() if name != "type"}
            words = ("--checkpoint={after}", "--untrained", f"--name={title}")
            program = evaluators.program_of(kind)
            commands.append(Command(title, (program, *words, *flags_of(own))))
    stem, seed = run.folder.rsplit("/", 1)
    folder = f"{stem}_{NAME}/{seed}"
    label = f"{NAME} as {run.arm}" if several else NAME
    return Job(run.arm, run.seed, folder, run.folder, tuple(commands), label)


def collect_floors(study: Study, jobs: Sequence[Job], pool: pathlib.Path) -> Values:
    """The measures of all untrained networks: title -> label -> seed -> number.

    Only of networks of which anything is measured.
    """
    found: dict[str, dict[str, dict[int, float]]] = {}  # label first
    for job in jobs:
        if not job.label or missing(job, pool):
            continue
        for title, measure in study["measures"].items():
            number = read_number(pool / job.after, measure, untrained=True)
            if number is not None:
                of_label = found.setdefault(job.label, {})
                of_label.setdefault(title, {})[job.seed] = number
    return {
        title: {label: one.get(title, {}) for label, one in found.items()}
        for title in study["measures"]
    }
