r"""A study: pre-train and evaluate what is missing of it, and write its page.

  python -m eval.study --study=configs/studies/transfer.py:quick

Anything in the study can be changed on the command line, as in
`--study.stores.pretrain=folder:/data/imagenet187`, `--study.seeds="(0,)"` or
`--study.changes.epochs=1.0`. In --workdir are

* `runs/`: a folder for each run; studies that have the same run share it,
* `STUDY/`: `study.html` (it needs no network), `study.csv` (every number), the pictures.

A study that was killed goes on with the same command. The same command in two terminals, or
on two hosts with one file system, shares the work. With --launcher=slurm each run is a task
of a SLURM array: --slurm=slurm_partition=gpu,gpus_per_node=1,timeout_min=600.
"""

import collections
import pathlib
import re
import shlex
import sys

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags
from tqdm import tqdm

from eval.study import budget, page, plan, runner
from eval.study.images import add_images, find_outdated
from sp_jax import cli, program
from sp_jax.errors import UserError


def run() -> int:
    """Make and show the study of the flags; its exit code."""
    values = flags.FLAGS
    workdir = pathlib.Path(values.workdir).absolute()
    pool = workdir / "runs"
    file = pathlib.Path(values["study"].config_filename).name
    name = re.sub(r"\W+", "_", file.replace(".py", ""))
    config, devices = values.study, runner.find_devices(values.jobs)
    if "hours" in config:  # what is asked of configs/studies/own.py
        if values.launcher == "slurm":
            raise UserError("This study is planned for one host: --launcher=local.")
        config, said = budget.plan_study(config, workdir / name, pool, devices)
        print(said, flush=True)
    study = plan.read_study(config)
    jobs = plan.make_jobs(study)
    if unknown := sorted(set(values.arms) - set(study["arms"])):
        known = ", ".join(sorted(study["arms"]))
        raise UserError(f"There is no arm {unknown[0]!r}: {known}.")
    protocols = None
    if values.launcher != "show":
        protocols = plan.check(study)
        jobs = add_images(study, jobs)
    chosen = [job for job in jobs if not values.arms or job.arm in values.arms]
    if protocols is None:
        return show(chosen, pool)
    for sentence in find_outdated(study, chosen, pool):
        print(f"warning: {sentence}", file=sys.stderr)
    todo = [job for job in chosen if runner.missing(job, pool)]
    print(
        f"{study['title']}: {len(chosen)} runs, {len(todo)} of them to do.", flush=True
    )
    failed, complete = [], True

    def show_page() -> pathlib.Path:
        return page.write(study, jobs, pool, workdir / name, protocols)

    if values.launcher == "local":
        bar = tqdm(total=len(todo), unit="run", disable=None)

        def report(job: plan.Job, error: str | None) -> None:
            if error:
                failed.append(job)
            bar.update()
            bar.write(f"{job.title}: {error or 'complete'}")
            show_page()  # it grows with the study

        devices = devices[
            : len(todo) or 1
        ]  # Where they are few, each has several cores.
        complete = runner.make_all(todo, jobs, pool, devices, report)
        bar.close()
    elif values.launcher == "slurm" and todo:
        from eval.study import slurm

        sent = slurm.submit(jobs, todo, pool, slurm.read_options(values.slurm))
        print(
            f"Sent as {sent[0].job_id} to {sent[-1].job_id}. When they have ended, the same "
            "command with --launcher=report writes the page."
        )
        return 0
    print(f"The page: {show_page()}")
    if not complete:
        print("Stopped; the same command goes on.")
        return 130
    return 1 if failed else 0


def show(jobs: list[plan.Job], pool: pathlib.Path) -> int:
    """Print the commands that are still to do, as they could be typed; the exit code."""
    counts = collections.Counter()
    for job in jobs:
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
        "Make the runs on this host or by SLURM; or only write the page of what is there, "
        "or only show what is to do.",
    )
    flags.DEFINE_integer("jobs", 0, "Runs at a time; 0: one a GPU, or one a core.", 0)
    flags.DEFINE_list("slurm", [], "NAME=VALUE: options of submitit.")
    flags.DEFINE_list("arms", [], "Make these arms only.")
    parse, example = program.parse_flags, "configs/studies/transfer.py:quick"
    app.run(main, flags_parser=lambda argv: parse(argv, "study", example))
