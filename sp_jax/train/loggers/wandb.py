"""Weights & Biases: one W&B run for each run folder, which resumes with it.

W&B refuses a step that is not behind its last one or, when files of offline runs are synced,
numbers it anew. So it gets each step once: those that it has are left out, and those that it
lost in a kill, or that are older than the logger, come from the record.
"""

import os
import pathlib
import secrets
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sp_jax import progress
from sp_jax.config import flatten
from sp_jax.files import write_text

# What W&B does unless the environment says otherwise. It asks nothing, and tells of nothing but
# failures; it leaves the terminal to our progress; a run waits a minute for the server at its
# beginning and its end, not days, and what is not sent then is a failure; and a kill takes a
# second away from the file of an offline run, not 15.
os.environ.setdefault("WANDB_SHOW_INFO", "false")
os.environ.setdefault("WANDB_CONSOLE", "off")
os.environ.setdefault("WANDB_INIT_TIMEOUT", "60")
os.environ.setdefault("WANDB_FINISH_TIMEOUT", "60")
os.environ.setdefault("WANDB_FINISH_TIMEOUT_RAISES", "true")
os.environ.setdefault("WANDB__TRANSACTION_LOG_FLUSH_INTERVAL", "1")

# After that, because it reads the environment; and in the main thread, because CPython 3.11
# cannot compile in two.
import wandb
from wandb.proto.wandb_internal_pb2 import Record

_BLOCK = 32768  # bytes, in a file of W&B


class _Run:
    def __init__(self, run: Any, first_step: int):
        self._run, self._first_step = run, first_step
        self.close = run.finish

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        if step >= self._first_step:
            row = dict(scalars)
            row["_timestamp"] = row.pop("time")  # by its own name, which has no chart
            self._run.log(row, step=step)


def create(workdir: pathlib.Path, config: Mapping[str, Any], record: Sequence) -> _Run:
    """See `sp_jax.train.loggers`. The id of the run is in wandb_id.txt."""
    path = workdir / "wandb_id.txt"
    if not path.exists():
        write_text(path, os.environ.get("WANDB_RUN_ID", secrets.token_hex(4)) + "\n")
    run = wandb.init(
        id=path.read_text().strip(),
        name=workdir.name,
        config=flatten(config),
        dir=os.environ.get("WANDB_DIR", workdir),
        resume="allow",
        allow_val_change=True,  # of what is free to change
    )
    if not run.offline:
        progress.say(f"W&B: {run.url}")
    first_step = run.starting_step
    if run.offline:  # no server knows which steps the run has: they are in its files
        files = pathlib.Path(run.dir).parents[1].glob(f"*run-*-{run.id}/*.wandb")
        steps = (step for file in files for step in _steps(file))
        first_step = max(steps, default=-1) + 1
    logger = _Run(run, first_step)
    for line in record:
        logger.write_scalars(*line)
    return logger


def _steps(path: pathlib.Path) -> Iterator[int]:
    """The steps in a file of W&B: 7 bytes, then protocol buffers in LevelDB's log format."""
    data, place, parts = path.read_bytes(), 7, b""
    while place + 7 < len(data):
        left = _BLOCK - place % _BLOCK
        if left < 7:  # the header of the next part is in the next block
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        place += 7 + length
        if not kind or place > len(data):  # a kill cut it short
            return
        parts += data[place - length : place]
        if kind in (1, 4):  # whole, or the last part
            if (record := Record.FromString(parts)).HasField("history"):
                yield record.history.step.num
            parts = b""
