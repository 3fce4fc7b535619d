"""metrics.jsonl, the record of a run, and the TensorBoard events made from it."""

import json
import os
import pathlib
import shutil

from tensorboardX import SummaryWriter


def read_metrics(workdir: str | os.PathLike) -> list[dict]:
    """The lines of a run's metrics.jsonl; a last line cut short by a kill is left out."""
    path = pathlib.Path(workdir) / "metrics.jsonl"
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


class MetricsWriter:
    """Append one line a log step; the file never has a gap or a repeat.

    A killed run may have written lines after its last checkpoint. They are cut off when
    it resumes, because the resumed run makes them again. The TensorBoard events are
    written anew from the remaining lines.

    Args:
        workdir: the run's folder.
        resume_step: the step that the run goes on from; later lines are cut off.
    """

    def __init__(self, workdir: str | os.PathLike, resume_step: int):
        workdir = pathlib.Path(workdir)
        path = workdir / "metrics.jsonl"
        kept = [line for line in read_metrics(workdir) if line["step"] <= resume_step]
        if resume_step == 0:
            kept = []
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        os.replace(temporary, path)
        self._file = open(path, "a")
        shutil.rmtree(workdir / "tensorboard", ignore_errors=True)
        self._events = SummaryWriter(str(workdir / "tensorboard"))
        for line in kept:
            self._add_events(line)

    def _add_events(self, line: dict) -> None:
        for name, value in line.items():
            if name not in ("step", "time"):
                self._events.add_scalar(name, value, line["step"], line["time"])

    def write(self, line: dict) -> None:
        """Append a line of scalars; it needs "step" and "time" (seconds since 1970)."""
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self._add_events(line)

    def close(self) -> None:
        """Flush both."""
        self._file.close()
        self._events.close()
