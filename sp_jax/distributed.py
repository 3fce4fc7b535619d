"""Several processes as one run: how they find each other, and the message if one dies.

JAX ends a process with `abort()` when it cannot reach the others or one of them died: no
exception is raised, and the last output is a C++ stack trace. So a shell waits beside the
process, and prints what to do if the process ends without a message.
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
    """A sentence that is printed when this process ends, however it ends."""

    def __init__(self):
        """Start the shell, out of reach of signals that are sent to this process."""
        shell = ["sh", "-c", _SHELL]
        self._shell = subprocess.Popen(
            shell, stdin=subprocess.PIPE, text=True, start_new_session=True
        )

    def set(self, sentence: str) -> None:
        """Replace the sentence; "" prints nothing, for a normal end."""
        with contextlib.suppress(OSError):  # somebody killed the shell
            self._shell.stdin.write(sentence + "\n")
            self._shell.stdin.flush()

    def end(self) -> None:
        """End the shell without printing."""
        self.set("")
        with contextlib.suppress(OSError):
            self._shell.stdin.close()
        self._shell.wait()


def join(
    automatic: bool, coordinator: str | None, processes: int | None, process: int | None
) -> LastWords:
    """Make this process one of several. It waits up to five minutes for the others.

    With `automatic` the other arguments come from SLURM, MPI, Kubernetes or a TPU. The
    coordinator is HOST:PORT of process 0.

    Returns:
        The message that is printed if this process ends before the message is replaced.

    Raises:
        UserError: an argument is missing, or two contradict each other.
    """
    given = (coordinator, processes, process)
    if automatic:
        if given != (None, None, None):
            raise UserError(
                "Give either --distributed, or --coordinator, --processes and --process."
            )
        hint = (
            "--distributed found no other process. Without SLURM, MPI, Kubernetes or a TPU, "
            "give --coordinator, --processes and --process."
        )
    else:
        if None in given:
            raise UserError(
                "--coordinator=HOST:PORT, --processes and --process belong together: "
                "give all three."
            )
        if process >= processes:
            raise UserError(
                f"There is no process {process} of {processes}: the numbers start at 0."
            )
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal():
            raise UserError(f"--coordinator is {coordinator!r}: give HOST:PORT.")
        hint = (
            f"This process could not join the others at {coordinator}: check that all "
            "were started with this --coordinator, that process 0 runs on that host "
            "and the port is free there, and that no firewall blocks it."
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
    """Raise UserError unless all processes have equally many devices, and the same facts.

    Facts are values that JSON can hold, under the names that an error uses for them.
    """
    if jax.process_count() == 1:
        return
    devices = collections.Counter(device.process_index for device in jax.devices())
    if len(set(devices.values())) > 1:
        counts = ", ".join(str(devices[i]) for i in range(jax.process_count()))
        raise UserError(
            f"The processes have different numbers of devices ({counts}): give each "
            "process the same number."
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
    """Warn if a launcher started several processes that do not train as one run."""
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
