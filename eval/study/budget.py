"""Plan a study that fits into some hours, from the time of a step on this machine.

`configs/studies/own.py` has the networks to choose from and the study itself. First a few steps
of each arm are made, with all other parts of a run and as many cores for each as later, so that
the plan knows all costs on this machine. The plan is kept in `plan.json`, and a study that was
stopped continues with it.
"""

import bisect
import datetime
import hashlib
import json
import pathlib
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from configs.studies import own
from configs.studies.own import Found, Size
from eval.study import images, own_images, plan, runner
from eval.study.checks import check_study
from eval.study.plan import Job
from eval.study.untrained import add_floors
from sp_jax.errors import UserError
from sp_jax.files import sha256_of, write_text
from sp_jax.json_file import read_json
from sp_jax.train.writer import read_metrics

PLAN = "plan.json"
NOT_A_PLAN = "{} is not a plan of this version: choose another --workdir."
TRIAL = {"core": 30, "GPU": 300}  # steps of each arm, to measure them
FILLED = 0.97  # share of the hours to use: the rest is for costs that no trial shows
WIDER = 2.5  # the next network costs at least so many times more


class Cost(NamedTuple):
    """The cost of a run of an arm.

    Attributes:
        seconds: all but its steps.
        step: seconds of a step.
    """

    seconds: float
    step: float

    def of(self, steps: int) -> float:
        """The seconds of a run."""
        return self.seconds + steps * self.step


class Chosen(NamedTuple):
    """The plan.

    Attributes:
        size: the network.
        steps: of each run.
        costs: of each arm.
    """

    size: Size
    steps: int
    costs: dict[str, Cost]


def check(config: ConfigDict) -> None:
    """Raise UserError for options that no study can have."""
    if config.hours <= 0:
        raise UserError(
            f"--study.hours={config.hours:g}: give the hours that it may take."
        )
    if not config.seeds or len(set(config.seeds)) < len(config.seeds):
        raise UserError(
            f"--study.seeds={config.seeds}: give one seed or more, each once."
        )


def shares(
    config: ConfigDict, devices: Sequence[Mapping[str, str]]
) -> Sequence[Mapping[str, str]]:
    """At most one device for each run, so that the runs share all cores."""
    return devices[: 2 * len(own.AUGMENTATIONS) * len(config.seeds)]


def plan_study(
    config: ConfigDict,
    out: pathlib.Path,
    pool: pathlib.Path,
    devices: Sequence[Mapping[str, str]],
) -> tuple[ConfigDict, str]:
    """The study that fits, and its plan in words.

    Args:
        config: as `configs.studies.own.get_config` describes it, with the flags.
        out: folder of the study, where the plan is kept.
        pool: folder of all runs.
        devices: environments of the runs that are made at a time.

    Raises:
        UserError: there are not enough images, pairs or hours, or the existing plan is of
            something else.
        KeyboardInterrupt: it was stopped.
    """
    began = time.monotonic()
    asked = config.to_dict()
    if unknown := sorted(set(asked) ^ set(own.get_config())):
        raise UserError(
            f"This study has no key {unknown[0]!r}: see configs/studies/own.py."
        )
    out.mkdir(parents=True, exist_ok=True)
    found = own_images.look(asked, out)
    kind = "GPU" if devices[0] else "core"
    machine = f"{platform.node()} ({kind}s), {len(devices)} runs at a time"
    about = {"asked": json.loads(json.dumps(asked)), "images": found.fingerprint}
    about["pairs"] = sha256_of(found.table) if found.table else ""
    path, remarks = out / PLAN, []
    if path.is_file():
        chosen, planned_for = _read_plan(path, about)
        if planned_for != machine:
            remarks.append(f"It was planned for another machine ({planned_for}).")
    else:
        # Costs on another machine, or with other runs beside, say nothing here.
        trials = f"trials_{hashlib.sha256(machine.encode()).hexdigest()[:8]}"
        chosen = choose(asked, found, pool / trials, devices, began)
        if path.is_file():  # the same command in another terminal was faster
            chosen, _ = _read_plan(path, about)
        else:
            kept = {"machine": machine} | chosen._asdict() | {"size": chosen.size.name}
            write_text(path, json.dumps(about | kept, indent=1) + "\n")
    study = own.make_study(asked, found, chosen.size, chosen.steps)
    jobs = jobs_of(study, pool)
    if not {job.label or job.arm for job in jobs} <= set(chosen.costs):
        raise UserError(NOT_A_PLAN.format(path))
    todo = [job for job in jobs if runner.missing(job, pool)]
    seconds = end_of(todo, chosen.costs, chosen.steps, len(devices))
    end = datetime.datetime.now() + datetime.timedelta(seconds=seconds)
    longest = max(cost.of(chosen.steps) for cost in chosen.costs.values()) / 60
    lines = [
        *found.sentences,
        f"Network: {chosen.size.name}, {own.IMAGE_SIZE} px, batches of "
        f"{own.batch_size(chosen.size, found)} pairs, {chosen.steps:,} steps.",
        f"{_count(jobs)} runs of {len(study.arms)} arms, {_count(todo)} of them to do, "
        f"{len(devices)} at a time; one takes {longest:.1f} minutes or less.",
        *remarks,
        f"It ends at about {end:%H:%M}, in {seconds / 3600:.2f} hours.",
    ]
    return study, "\n".join(f"# {line}" for line in lines)


def _read_plan(path: pathlib.Path, about: Mapping[str, Any]) -> tuple[Chosen, str]:
    """The existing plan, and the machine that it was made for.

    Raises:
        UserError: it is damaged, or was made for something else.
    """
    kept = read_json(path)
    sizes = {size.name: size for size in own.SIZES}
    needed = {"asked", "images", "machine", "size", "steps", "costs"}
    if not needed <= set(kept) or kept["size"] not in sizes:
        raise UserError(NOT_A_PLAN.format(path))
    for name, value in about["asked"].items():
        if (before := kept["asked"].get(name)) != value:
            raise UserError(
                f"{path} is the plan of a study with {name}={before}, not {value}: choose "
                "another --workdir, or continue with the earlier command."
            )
    for name in ("images", "pairs"):
        if kept.get(name, about[name]) != about[name]:  # an older plan has no pairs
            raise UserError(
                f"The {name} changed since {path} was made: choose another --workdir, or "
                "restore them."
            )
    costs = {arm: Cost(*cost) for arm, cost in kept["costs"].items()}
    return Chosen(sizes[kept["size"]], kept["steps"], costs), kept["machine"]


def choose(
    asked: Mapping[str, Any],
    found: Found,
    pool: pathlib.Path,
    devices: Sequence[Mapping[str, str]],
    began: float,
) -> Chosen:
    """The largest network whose runs, with the steps that it needs, end in time.

    The trials are in the folder `pool`.

    Raises:
        UserError: those of the smallest one do not.
        KeyboardInterrupt: it was stopped.
    """
    end, best, most = began + asked["hours"] * 3600 * FILLED, None, 0
    for size in own.SIZES:
        if most < WIDER * size.least and best:
            break
        print(f"# Measuring a few steps of each arm: {size.name} …", flush=True)
        try:
            costs = measure(asked, found, size, pool, devices)
        except UserError as error:
            if best is None:
                raise
            print(f"# {error} So the network is the one before it.", flush=True)
            break
        jobs = jobs_of(own.make_study(asked, found, size, 1), pool)

        def needs(steps: int, jobs=jobs, costs=costs) -> float:
            return end_of(jobs, costs, steps, len(devices))

        most = _most(needs, end - time.monotonic())
        if most >= size.least:
            best = size, costs, needs
        elif best is None:
            seconds = needs(size.least) + time.monotonic() - began
            hours = np.ceil(seconds / 3600 / FILLED * 100) / 100
            raise UserError(
                f"--study.hours={asked['hours']:g} is too short: {_count(jobs)} runs of at "
                f"least {size.least} steps need {hours:g} hours here."
            )
    size, costs, needs = best
    # A larger network that was tried in vain has taken some of the time.
    return Chosen(size, max(size.least, _most(needs, end - time.monotonic())), costs)


def _most(needs: Callable[[int], float], seconds: float) -> int:
    """The largest number of steps for which `needs` is not above some seconds; or 0."""
    highest = 1
    while needs(highest) <= seconds:
        highest *= 2
    return bisect.bisect_right(range(1, highest), seconds, key=needs)


def measure(
    asked: Mapping[str, Any],
    found: Found,
    size: Size,
    pool: pathlib.Path,
    devices: Sequence[Mapping[str, str]],
) -> dict[str, Cost]:
    """Make a few steps of each arm; returns the cost of a run of each.

    Raises:
        UserError: a run failed.
        KeyboardInterrupt: it was stopped.
    """
    steps = TRIAL["GPU" if devices[0] else "core"]
    study = own.make_study(asked | {"seeds": asked["seeds"][:1]}, found, size, steps)
    study.changes.log_every = steps // 3
    study = plan.read_study(study)
    planned = add_floors(study, plan.make_jobs(study), pool)
    check_study(study, planned, pool)
    # For ready weights, whose results are kept, the first evaluation shows the others' cost.
    jobs = [
        job._replace(commands=job.commands[:1]) if job.seed is None else job
        for job in images.add_images(study, planned)
    ]
    failed = []

    def report(job: Job, error: str | None) -> None:
        failed.extend([f"{job.arm}: {error}"] if error else [])

    todo = [job for job in jobs if runner.missing(job, pool)]
    if not runner.make_all(todo, jobs, pool, devices, report):
        raise KeyboardInterrupt
    if failed:
        raise UserError(f"A trial of the study failed: {failed[0]}")
    return dict(_costs(jobs, pool, steps))


def jobs_of(study: ConfigDict, pool: pathlib.Path) -> list[Job]:
    """The runs of a study, and the jobs that measure their untrained networks."""
    read = plan.read_study(study)
    return add_floors(read, plan.make_jobs(read), pool)


def _count(jobs: Sequence[Job]) -> int:
    """The number of jobs that are runs."""
    return sum(not job.label for job in jobs)


def _costs(
    jobs: Sequence[Job], pool: pathlib.Path, steps: int
) -> Iterator[tuple[str, Cost]]:
    """The cost of the arm of each job, whose run made `steps` steps."""
    for job in jobs:
        record = runner.read_record(pool / job.folder)
        spent = {name: one["seconds"] for name, one in record.items()}
        times = [
            x["step_ms"] for x in read_metrics(pool / job.folder) if "step_ms" in x
        ]
        if job.seed is None:
            # Each evaluation computes all features again; invariances take more images.
            yield job.arm, Cost(4 * spent[job.commands[0].name], 0.0)
        elif job.label:
            yield job.label, Cost(sum(spent.values()), 0.0)
        else:
            # The first line includes the start.
            step = float(np.median(times[1:])) / 1e3
            # A trial that was stopped and continued has made some steps before.
            rest = max(0.0, sum(spent.values()) - steps * step)
            yield job.arm, Cost(rest, step)


def end_of(
    jobs: Sequence[Job], costs: Mapping[str, Cost], steps: int, slots: int
) -> float:
    """The seconds until all runs have ended, with `slots` of them at a time."""
    free, ends = [0.0] * slots, {}
    for job in jobs:
        slot = int(np.argmin(free))
        start = max(free[slot], ends.get(job.after, 0.0))
        ends[job.folder] = free[slot] = start + costs[job.label or job.arm].of(steps)
    return max(free)
