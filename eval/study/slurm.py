"""Make the runs of a study as a SLURM array, one task for each run, by submitit."""

import pathlib
from collections.abc import Sequence
from typing import Any

import submitit

from eval.study.plan import Job
from eval.study.runner import Worker
from sp_jax.errors import UserError


class Task:
    """One run, as a task of the array.

    submitit calls it on the node, and calls `checkpoint` before the task is preempted or its
    time is over: the run saves, and the task returns to the queue.
    """

    def __init__(self, job: Job, jobs: Sequence[Job], pool: pathlib.Path):
        self._given = (job, tuple(jobs), pool)
        self._worker: Worker | None = None

    def __call__(self) -> str:
        """Make the run; returns its folder."""
        job, *study = self._given
        self._worker = Worker(*study)
        self._worker.make(job, {})
        return job.folder

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Let the run save; returns the task for the queue."""
        if self._worker:
            self._worker.stop()
        return submitit.helpers.DelayedSubmission(Task(*self._given))


def read_options(texts: Sequence[str]) -> dict[str, Any]:
    """Read `NAME=VALUE` as options of `submitit.AutoExecutor.update_parameters`.

    Raises:
        UserError: one has no value.
    """
    options: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(
                f"--slurm={text}: give NAME=VALUE, such as timeout_min=600."
            )
        options[name] = int(value) if value.isdecimal() else value
    return options


def submit(
    jobs: Sequence[Job],
    todo: Sequence[Job],
    pool: pathlib.Path,
    options: dict[str, Any],
    cluster: str = "slurm",
) -> list[submitit.Job]:
    """Send runs to the cluster, whose nodes see the folder of all runs, too.

    Args:
        jobs: all runs of the study.
        todo: those to send.
        pool: folder of all runs.
        options: see `read_options`.
        cluster: "slurm", or another cluster that submitit knows.

    Raises:
        UserError: there is no SLURM here, or it does not know an option.
    """
    try:
        executor = submitit.AutoExecutor(pool.parent / "slurm", cluster=cluster)
        executor.update_parameters(name="sp_jax", **options)
    except (RuntimeError, NameError, TypeError) as error:
        raise UserError(f"--launcher=slurm: {error}") from error
    with executor.batch():
        return [executor.submit(Task(job, jobs, pool)) for job in todo]
