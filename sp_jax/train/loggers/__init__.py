"""Loggers get a run's numbers besides its record, metrics.jsonl: TensorBoard, W&B, your own.

A logger's module has `create(workdir, config, record)`, which returns a `Logger`: `workdir` is
the run's folder, `config` its config as nested dicts, and `record` the lines of metrics.jsonl
before a resumed run, as (step, scalars). A module outside the project is named by its import
path. After a kill, the steps since the last checkpoint are logged again, with the same
numbers.
"""

import contextlib
import pathlib
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any, Protocol

from sp_jax import extras, progress, registry
from sp_jax.errors import UserError

NAMES = ("tensorboard", "wandb")
PATIENCE = 75.0  # Seconds that the end of a run waits for a logger.


class Logger(Protocol):
    """What `create` returns; all calls come from one thread, not the one that trains."""

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Log the numbers of a line of metrics.jsonl, without its "step".

        "time" is among them, in seconds since 1970. A step may have several lines.
        """

    def close(self) -> None:
        """The run has ended, successfully or not: send what has not been sent."""


def get(name: str) -> ModuleType:
    """The module of a logger, by its name or by the import path of a user's own.

    Raises:
        UserError: there is no such logger, or its module or library cannot be used.
    """
    if name in NAMES:
        extras.require(name, f"The logger {name!r} of config.loggers")
    module = registry.find("logger", name, __name__, NAMES)
    registry.check_contract("logger", name, module, ["create"])
    return module


def check(names: Sequence[str]) -> None:
    """Raise UserError unless all of `config.loggers` can be used."""
    if not isinstance(names, list | tuple):
        raise UserError(
            f"config.loggers is {names!r}: give a tuple, such as ('tensorboard', 'wandb')."
        )
    for name in names:
        get(name)


class InBackground:
    """A logger in its own thread: it can neither stop the training nor make it wait."""

    def __init__(self, name: str, create: Callable[[], Logger]):
        """Start with `create()`. The first failure is reported, and ends the logger."""
        self._name, self._create, self._left = name, create, False
        self._lines: queue.SimpleQueue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with contextlib.closing(self._create()) as logger:
                while line := self._lines.get():
                    logger.write_scalars(*line)
        except BaseException as error:  # also the exit of a library
            if self._left:
                return
            words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            progress.say(
                f"The logger {self._name!r} has failed ({words}), and the run continues "
                "without it; metrics.jsonl has all numbers."
            )

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """As `Logger.write_scalars`, but returns at once."""
        self._lines.put((step, scalars))

    def close(self) -> None:
        """Wait until all is logged, for a limited time."""
        self._lines.put(None)
        with progress.show(f"waiting for the logger {self._name!r}"):
            self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self._left = True
            progress.say(
                f"The logger {self._name!r} has not ended after {PATIENCE:.0f} s and is "
                "abandoned; metrics.jsonl has all numbers."
            )


def start(
    names: Sequence[str],
    workdir: pathlib.Path,
    config: Mapping[str, Any],
    record: Sequence[tuple[int, Mapping[str, float]]],
) -> list[InBackground]:
    """Start the loggers of these names for a run; see above."""
    return [
        InBackground(name, partial(get(name).create, workdir, config, record))
        for name in dict.fromkeys(names)
    ]
