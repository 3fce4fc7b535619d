"""Several processes as one run: how they find each other, and what is said when one dies.

JAX ends a process with `abort()` when it cannot reach the others or one of them died: no
exception is raised, and a trace of C++ is the last thing to be read. So a shell waits
beside the process, and says what to do if the process ends without a word.
"""

import collections
import contextlib
import hashlib
import json
import logging
import os
import subprocess
import sys
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from sp_jax import progress
from sp_jax.errors import UserError

# Prints the last line that it read, once the pipe is closed: by the end of the process.
_SHELL = """while read -r line; do last=$line; done
[ -z "$last" ] || echo "error: $last" >&2"""


class LastWords:
    """A sentence to be printed when this process ends, in whatever way."""

    def __init__(self):
        """Start the shell, out of reach of signals that are sent to this process."""
        shell = ["sh", "-c", _SHELL]
        self._shell = subprocess.Popen(
            shell, stdin=subprocess.PIPE, text=True, start_new_session=True
        )

    def set(self, sentence: str) -> None:
        """Replace the sentence; "" is for an end in good order."""
        with contextlib.suppress(OSError):  # somebody killed the shell
            self._shell.stdin.write(sentence + "\n")
            self._shell.stdin.flush()

    def end(self) -> None:
        """Say nothing, and end the shell."""
        self.set("")
        with contextlib.suppress(OSError):
            self._shell.stdin.close()
        self._shell.wait()


def join(
    automatic: bool, coordinator: str | None, processes: int | None, process: int | None
) -> LastWords:
    """Make this process one of several. It waits up to five minutes for the others.

    With `automatic` SLURM, MPI, Kubernetes or a TPU tells what follows. The coordinator is
    HOST:PORT of process 0.

    Returns:
        What is said if this process ends before its last words are replaced.

    Raises:
        UserError: something is missing or contradicts.
    """
    given = (coordinator, processes, process)
    if automatic:
        if given != (None, None, None):
            raise UserError("Give --distributed, or --coordinator and its two others.")
        hint = (
            "--distributed found no other process; give --coordinator, --processes and "
            "--process if neither SLURM, MPI, Kubernetes nor a TPU tells of them."
        )
    else:
        if None in given:
            raise UserError(
                "--coordinator=HOST:PORT, --processes and --process belong together: "
                "give all three."
            )
        if process >= processes:
            raise UserError(
                f"There is no process {process} of {processes}: they count from 0."
            )
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal():
            raise UserError(f"--coordinator is {coordinator!r}: give HOST:PORT.")
        hint = (
            f"This process could not join the others at {coordinator}: check that all "
            "were started with this --coordinator, that process 0 runs on that host "
            "and the port is free there, and that no firewall is between."
        )
    words = LastWords()
    words.set(hint)
    try:
        jax.distributed.initialize(*given)
    except (ValueError, RuntimeError) as error:
        words.end()
        raise UserError(f"{hint} ({error})") from error
    if jax.process_index():
        progress.silence()
    return words


def check_equal(facts: dict[str, Any]) -> None:
    """Raise UserError unless all processes have as many devices, and the same facts.

    Facts are what JSON can tell, by the names that an error gives them.
    """
    if jax.process_count() == 1:
        return
    devices = collections.Counter(device.process_index for device in jax.devices())
    if len(set(devices.values())) > 1:
        counts = ", ".join(str(devices[i]) for i in range(jax.process_count()))
        raise UserError(
            f"The processes have different numbers of devices ({counts}): give each the "
            "same."
        )
    for name, fact in facts.items():
        text = json.dumps(fact, sort_keys=True).encode()
        digest = np.frombuffer(hashlib.sha256(text).digest(), np.uint32)
        everywhere = multihost_utils.process_allgather(digest)
        others = np.flatnonzero((everywhere != everywhere[0]).any(axis=1))
        if len(others):
            raise UserError(
                f"The {name} of process {', '.join(map(str, others))} and of process 0 "
                "differ: start all of them with the same command, code and data."
            )


def warn_if_alone() -> None:
    """Say so if a launcher started several processes, but none was told of the others."""
    for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
        if int(os.environ.get(name, 1)) > 1:
            logging.warning(
                f"{name} is {os.environ[name]}, but each process trains by itself: add "
                "--distributed to make one run of them."
            )


def leave(code: int) -> None:
    """End this process at once. The others may be waiting for it, or be dead."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
