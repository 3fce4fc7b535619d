"""Make the missing runs of a study, each by one process at a time.

A run's folder holds `study.json`, the commands that succeeded. These are not repeated, unless
the checkpoint or the images that they read have changed, or an evaluation's result is gone.
While a run is made its folder is locked; the lock belongs to the working process and its
children, and is freed when they end, however they end.
"""

import concurrent.futures
import contextlib
import fcntl
import functools
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from eval import results
from eval.study.plan import Command, Job
from sp_jax.errors import UserError
from sp_jax.files import sha256_of, write_text
from sp_jax.json_file import read_json
from sp_jax.train.checkpoint import MANIFEST, find_steps, read_meta

RECORD = "study.json"
Begin = Callable[[Job, Command], None]


class CommandError(RuntimeError):
    """A command of a run failed; the message is its last output."""


class Stopped(RuntimeError):
    """The study was told to stop; its current work continues next time."""


def read_record(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
    """The commands of a run that succeeded: words, seconds, checkpoint, images.

    Raises:
        UserError: the record is damaged; the sentence names it.
    """
    path = folder / RECORD
    record = read_json(path) if path.is_file() else {}
    for one in record.values():
        if not isinstance(one, dict) or not {"words", "seconds"} <= set(one):
            raise UserError(
                f"{path} is damaged: it is not a record of a study's commands."
            )
    return record


def missing(job: Job, pool: pathlib.Path) -> list[Command]:
    """The commands of a run that are still to do: all from the first missing one on."""
    record = read_record(pool / job.folder)
    for number, command in enumerate(job.commands):
        done = record.get(command.name, {})
        if (
            done.get("words") != list(command.words)
            or done.get("checkpoint") != _checkpoint_of(job.words(command, pool))
            or command.images not in (None, done.get("images"))
            or not _has_result(job, command, pool)
        ):
            return list(job.commands[number:])
    return []


def _has_result(job: Job, command: Command, pool: pathlib.Path) -> bool:
    """Whether the result of an evaluation is there; also True of other commands."""
    if command.images is None:
        return True
    place, untrained = pool / (job.after if job.label else job.folder), bool(job.label)
    about = {"untrained": untrained, "images": command.images}
    return results.read_newest(place, command.name, **about) is not None


def _checkpoint_of(words: Sequence[str]) -> str | None:
    """SHA-256 hex of the newest checkpoint that a command reads; None if it reads none.

    It is that of a file of weights, or of the list of the checkpoint's files, which has the
    SHA-256 of each file.
    """
    for word in words:
        name, _, value = word.partition("=")
        if name == "--checkpoint" and pathlib.Path(value).is_file():
            stat = os.stat(value)
            return _digest_file(value, stat.st_size, stat.st_mtime_ns)
        folder = pathlib.Path(value) / "checkpoints"
        if name == "--checkpoint" and (steps := find_steps(folder)):
            manifest = folder / str(steps[0]) / MANIFEST
            if manifest.is_file():
                return sha256_of(manifest)
    return None


@functools.cache
def _digest_file(path: str, size: int, time_ns: int) -> str:
    """SHA-256 hex of a file, which has this size and time."""
    del size, time_ns
    return sha256_of(path)


class Worker:
    """Makes runs of a study, and can be stopped."""

    def __init__(
        self, jobs: Sequence[Job], pool: pathlib.Path, begin: Begin = lambda *_: None
    ):
        self._jobs = {job.folder: job for job in jobs}
        self._pool = pool
        self._begin = begin
        # Reentrant: a signal may come while this thread holds it.
        self._lock = threading.RLock()
        self._stopped = False
        self._processes: set[subprocess.Popen] = set()
        self._failed: dict[str, CommandError] = {}

    def stop(self) -> None:
        """Tell running commands to save and end, wait for them, and start no new ones."""
        with self._lock:
            self._stopped = True
            running = list(self._processes)
            for process in running:
                process.terminate()
        for process in running:
            # Not Popen.wait, which the code that the signal interrupted may be in.
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    def make(self, job: Job, environment: Mapping[str, str], wait: bool = True) -> bool:
        """Make the missing parts of a run, after those of the run that it depends on.

        Args:
            job: the run.
            environment: of its processes, besides this one's.
            wait: whether to wait for another process that makes it, or to leave it.

        Returns:
            Whether it is complete now; False if it was left to the other process.

        Raises:
            CommandError: a command failed.
            Stopped: `stop` was called.
        """
        if self._stopped:
            raise Stopped
        if job.after and not self.make(self._jobs[job.after], environment, wait):
            return False
        if not missing(job, self._pool):
            return True
        if job.folder in self._failed:  # do not retry for each run that depends on it
            raise self._failed[job.folder]
        with self._claim(self._pool / job.folder, wait) as lock:
            if lock is None:
                return False
            for command in missing(job, self._pool):
                try:
                    self._run(command, job, environment, lock)
                except CommandError as error:
                    self._failed[job.folder] = error
                    raise
        return True

    @contextlib.contextmanager
    def _claim(self, folder: pathlib.Path, wait: bool) -> Iterator[int | None]:
        """The lock of a run's folder, a file that children inherit; None if it is taken."""
        folder.mkdir(parents=True, exist_ok=True)
        taken = False
        with open(folder / ".lock", "a") as lock:
            while not taken and not self._stopped:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    taken = True
                except BlockingIOError:
                    if not wait:
                        break
                    time.sleep(1)  # waiting in flock would not notice `stop`
            if self._stopped:
                raise Stopped
            yield lock.fileno() if taken else None

    def _run(
        self, command: Command, job: Job, environment: Mapping[str, str], lock: int
    ) -> None:
        folder = self._pool / job.folder
        log = folder / f"{command.name}.log"
        self._begin(job, command)
        started = time.monotonic()
        with open(log, "a", encoding="utf-8") as file:
            before = file.tell()
            with self._lock:
                if self._stopped:
                    raise Stopped
                process = subprocess.Popen(
                    [sys.executable, "-m", *job.words(command, self._pool)],
                    stdout=file,
                    stderr=file,
                    env={**os.environ, **environment},
                    pass_fds=(lock,),
                    start_new_session=True,  # Ctrl-C comes to us, and we ask it to save
                )
                self._processes.add(process)
            code = process.wait()
            with self._lock:
                self._processes.discard(process)
                if self._stopped:
                    raise Stopped
        if code:
            said = last_words(log, before)
            if code < 0:  # such as that of a system without memory
                said = f"killed by {signal.Signals(-code).name}; it had said: {said}"
            raise CommandError(f"{command.name}: {said} (see {log})")
        detection = folder / "detection" / command.name
        place = folder if command.name == "train" else detection
        if (command.name == "train" or place.is_dir()) and not _trained(place):
            raise CommandError(
                f"{command.name}: it was stopped before its end (see {log})"
            )
        record = read_record(folder)
        record[command.name] = {
            "words": list(command.words),
            "seconds": round(time.monotonic() - started, 1),
            "checkpoint": _checkpoint_of(job.words(command, self._pool)),
            "images": command.images,
        }
        # The commands after a repeated command are repeated, too.
        for later in missing(job, self._pool)[1:]:
            record.pop(later.name, None)
        write_text(folder / RECORD, json.dumps(record, indent=1) + "\n")


def _trained(folder: pathlib.Path) -> bool:
    """Whether the newest checkpoint is of the last step: SIGTERM ends a run early."""
    if not (steps := find_steps(folder / "checkpoints")):
        return False
    meta = read_meta(folder / "checkpoints" / str(steps[0]))
    return meta.get("run", {}).get("total_steps") == steps[0]


def last_words(log: pathlib.Path, start: int = 0) -> str:
    """The error in a log from a byte on, or its last line."""
    text = log.read_bytes()[start:].decode(errors="replace")
    lines = list(filter(str.strip, text.splitlines()))
    errors = [line for line in lines[-30:] if line.startswith("error: ")]
    return (errors or lines or ["it printed nothing"])[-1].removeprefix("error: ")


_NO_GPU = ("", "-1", "NoDevFiles")  # in CUDA_VISIBLE_DEVICES


def find_devices(jobs: int) -> list[dict[str, str]]:
    """Equal shares of this host's GPUs, or of its cores, as environments of processes.

    Args:
        jobs: number of shares; 0 for one per GPU, or one per core.

    Raises:
        UserError: there are fewer GPUs than jobs.
    """
    paths = pathlib.Path("/dev").glob("nvidia[0-9]*")
    here = ",".join(sorted(path.name.removeprefix("nvidia") for path in paths))
    given = os.environ.get("CUDA_VISIBLE_DEVICES", here)
    if gpus := [gpu for gpu in given.split(",") if gpu not in _NO_GPU]:
        jobs = jobs or len(gpus)
        if jobs > len(gpus):
            raise UserError(f"--jobs is {jobs}, but there are {len(gpus)} GPUs here.")
        return [{"CUDA_VISIBLE_DEVICES": ",".join(gpus[i::jobs])} for i in range(jobs)]
    return [{}] * (jobs or len(os.sched_getaffinity(0)))


def make_all(
    todo: Sequence[Job],
    jobs: Sequence[Job],
    pool: pathlib.Path,
    environments: Sequence[Mapping[str, str]],
    report: Callable[[Job, str | None], None],
    begin: Begin = lambda *_: None,
) -> bool:
    """Make the missing parts of all runs on this host, several runs at a time.

    SIGTERM and Ctrl-C let running commands save, and then end.

    Args:
        todo: runs to make, those that others wait for first.
        jobs: all runs of the study.
        pool: folder of all runs.
        environments: one for each run that is made at the same time.
        report: called with each run that ended, and its error or None.
        begin: called with each command that begins, by the thread of its run.

    Returns:
        Whether all were made; False if it was stopped.
    """
    worker = Worker(jobs, pool, begin)
    free: queue.Queue[tuple[int, Mapping[str, str]]] = queue.Queue()
    for slot in enumerate(environments):
        free.put(slot)
    cores = sorted(os.sched_getaffinity(0))

    def make(job: Job, wait: bool) -> bool:
        number, environment = free.get()
        try:
            if not environment and len(environments) > 1:
                # For this thread and its children: as many cores for each job, its own ones
                # as far as there are enough.
                count = max(1, len(cores) // len(environments))
                places = range(number * count, (number + 1) * count)
                os.sched_setaffinity(0, [cores[i % len(cores)] for i in places])
            return worker.make(job, environment, wait)
        finally:
            free.put((number, environment))

    def round_of(some: Sequence[Job], wait: bool) -> list[Job]:
        """Make these runs; returns those that other processes are making."""
        left = []
        with concurrent.futures.ThreadPoolExecutor(len(environments)) as threads:
            futures = {threads.submit(make, job, wait): job for job in some}
            for future in concurrent.futures.as_completed(futures):
                job = futures[future]
                try:
                    if future.result():
                        report(job, None)
                    else:
                        left.append(job)
                except (CommandError, UserError, OSError) as error:
                    report(job, str(error))
                except Stopped:
                    threads.shutdown(wait=False, cancel_futures=True)
                    raise
        return left

    signals = signal.SIGTERM, signal.SIGINT
    previous = {one: signal.signal(one, lambda *_: worker.stop()) for one in signals}
    try:
        round_of(round_of(todo, wait=False), wait=True)
    except (Stopped, concurrent.futures.CancelledError):
        return False
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
    return True
