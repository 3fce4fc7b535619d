r"""Make a study: pre-train and evaluate its missing runs, and write its page.

  python -m eval.study --study=configs/studies/transfer.py:quick

Anything in the study can be changed on the command line, as in
`--study.stores.pretrain=folder:/data/imagenet187`, `--study.seeds="(0,)"` or
`--study.changes.epochs=1.0`. In --workdir are

* `runs/`: a folder for each run; studies that have the same run share it,
* `STUDY/`: `study.html` (it needs no network), `study.csv` (every number), the pictures.

A study that was killed continues with the same command. The same command in two terminals, or
on two hosts with one file system, shares the work. With --launcher=slurm each run is a task
of a SLURM array: --slurm=slurm_partition=gpu,gpus_per_node=1,timeout_min=600.
"""

import collections
import pathlib
import shlex
import sys
from collections.abc import Mapping

import jax
from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from eval.study import budget, changes, numbers, page, plan, runner
from eval.study.checks import check_study
from eval.study.images import add_images, find_outdated
from eval.study.untrained import add_floors
from sp_jax import cli, extras, program, progress
from sp_jax.errors import UserError


def run() -> int:
    """Make and show the study of the flags; returns the exit code."""
    values = flags.FLAGS
    # Only the runs, which are separate processes, take memory of a GPU.
    jax.config.update("jax_platforms", "cpu")
    workdir = pathlib.Path(values.workdir).absolute()
    pool, file = workdir / "runs", values["study"].config_filename
    if values.launcher == "slurm":
        extras.require("slurm", "--launcher=slurm")
    elif values.slurm:
        raise UserError("--slurm has options of --launcher=slurm, which is not given.")
    config, environments = values.study, runner.find_devices(values.jobs)
    if "arms" not in config:  # the options of configs/studies/own.py
        if values.launcher == "slurm":
            raise UserError("This study is planned for one host: --launcher=local.")
        if values.arms:
            raise UserError("The hours are planned for all arms: leave --arms out.")
        asked = changes.find_changes(config, file)
        out = workdir / changes.name_page(file, asked)
        budget.check(config)
        if values.launcher == "report" and not (out / budget.PLAN).is_file():
            raise UserError(
                f"There is no {out / budget.PLAN}: give the flags with which the study was "
                "made, or --launcher=local."
            )
        environments = budget.shares(config, environments)
        config, said = budget.plan_study(config, out, pool, environments)
        print(said, flush=True)
    study = plan.read_study(config)
    every = set(study["arms"])
    study = plan.choose_arms(study, values.arms or every)
    arms = [] if set(study["arms"]) == every else list(study["arms"])
    changed = changes.find_changes(values.study, file, arms)
    changes.check_reach(study, changed)
    study, warning = changes.place_in_frame(study, file, changed)
    out = workdir / changes.name_page(file, changed)
    jobs = plan.make_jobs(study)
    here = values.launcher in ("local", "show")  # elsewhere nobody knows the devices
    devices = _count_devices(environments[0]) if here else 1
    protocols = check_study(study, jobs, pool, devices)
    jobs = add_images(study, add_floors(study, jobs, pool))
    if values.launcher == "show":
        return show(jobs, pool)
    outdated = find_outdated(study, jobs, pool)
    for sentence in [*filter(None, [warning]), *outdated]:
        print(f"warning: {sentence}", file=sys.stderr)
    todo = [job for job in jobs if runner.missing(job, pool)]
    runs = sum(not job.label for job in jobs)
    to_do = sum(not job.label for job in todo)
    print(f"{study['title']}: {runs} runs, {to_do} of them to do.", flush=True)
    failed, complete = [], True

    def show_page() -> pathlib.Path:
        words = [
            f"--{name}={value}" for name, value in {"study": file, **changed}.items()
        ]
        command = shlex.join(["python", "-m", "eval.study", *words])
        said = [*filter(None, [warning]), *outdated, *numbers.find_mixed(jobs, pool)]
        text = " ".join(said)
        return page.write(study, jobs, pool, out, protocols, changed, text, command)

    if values.launcher == "local":

        def begin(job: plan.Job, command: plan.Command) -> None:
            work.note = f"{job.title}: {command.name}"

        def report(job: plan.Job, error: str | None) -> None:
            if error:
                failed.append(job)
            work.update()
            progress.say(f"{job.title}: {error or 'complete'}")
            try:
                show_page()  # it grows with the study
            except (UserError, OSError) as problem:  # the other runs go on
                progress.say(f"The page cannot be written now: {problem}")

        # Where they are few, each has several cores.
        environments = environments[: len(todo) or 1]
        with progress.show("study", len(todo), "runs") as work:
            complete = runner.make_all(todo, jobs, pool, environments, report, begin)
    elif values.launcher == "slurm" and todo:
        from eval.study import slurm

        sent = slurm.submit(jobs, todo, pool, slurm.read_options(values.slurm))
        print(
            f"Sent as {sent[0].job_id} to {sent[-1].job_id}. When they have ended, the same "
            "command with --launcher=report writes the page."
        )
        return 0
    written = show_page()
    print(f"The page: {written}")
    if written.parent != out:
        print(
            f"{out / written.name} is kept: it is of another study file, or has more runs "
            "than there are now, because images or results have changed or are gone."
        )
    for sentence in numbers.find_mixed(jobs, pool):
        print(f"warning: {sentence}", file=sys.stderr)
    if not complete:
        print("Stopped; the same command continues.")
        return 130
    return 1 if failed else 0


def _count_devices(environment: Mapping[str, str]) -> int:
    """The number of devices of a run with this environment."""
    gpus = environment.get("CUDA_VISIBLE_DEVICES")
    return len(gpus.split(",")) if gpus else jax.device_count()


def show(jobs: list[plan.Job], pool: pathlib.Path) -> int:
    """Print the commands that are still to do, ready to type; returns the exit code."""
    counts = collections.Counter()
    for job in filter(lambda job: job.commands, jobs):
        todo = runner.missing(job, pool)
        counts["to do" if todo else "complete"] += 1
        print(f"# {job.title}: {len(todo)} of {len(job.commands)} to do")
        for command in todo:
            print(f"python -m {shlex.join(job.words(command, pool))}")
    print("# " + ", ".join(f"{count} {what}" for what, count in counts.items()))
    return 0


def main(argv: list[str]) -> int:
    """Run the program; a mistake of the user is one sentence and code 2."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    if argv[1:]:
        return cli.report(f"Unknown argument {argv[1]!r}: options start with --.")
    return cli.guard(run)


if __name__ == "__main__":
    config_flags.DEFINE_config_file(
        "study", None, "Path of a study.", lock_config=False, accept_new_attributes=True
    )
    flags.DEFINE_string("workdir", "runs/studies", "Folder of runs and pages.")
    flags.DEFINE_enum(
        "launcher",
        "local",
        ("local", "slurm", "report", "show"),
        "local, slurm: make the runs on this host or by SLURM. report: only write the page "
        "of the finished runs. show: only print the commands that are still to do.",
    )
    flags.DEFINE_integer(
        "jobs", 0, "Runs at a time; 0: one per GPU, or one per core.", 0
    )
    flags.DEFINE_list("slurm", [], "Options of submitit: NAME=VALUE,NAME=VALUE.")
    flags.DEFINE_list("arms", [], "Make only these arms.")
    parse, example = program.parse_flags, "configs/studies/transfer.py:quick"
    app.run(main, flags_parser=lambda argv: parse(argv, "study", example))
