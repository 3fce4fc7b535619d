"""TensorBoard events in the run's folder, rewritten when the run resumes."""

import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from tensorboardX import SummaryWriter


class _Events:
    def __init__(self, folder: pathlib.Path):
        self._writer = SummaryWriter(str(folder))
        self.close = self._writer.close

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            if name != "time":
                self._writer.add_scalar(name, value, step, scalars["time"])


def create(
    workdir: pathlib.Path, config: Mapping[str, Any], record: Sequence
) -> _Events:
    """See `sp_jax.train.loggers`."""
    folder = workdir / "tensorboard"
    shutil.rmtree(folder, ignore_errors=True)
    events = _Events(folder)
    for line in record:
        events.write_scalars(*line)
    return events
