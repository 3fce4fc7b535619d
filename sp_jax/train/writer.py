"""metrics.jsonl, the record of a run."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from sp_jax.errors import UserError
from sp_jax.files import write_text
from sp_jax.json_file import from_json, to_json


def read_metrics(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; null is read as not a number.

    A last line that a kill cut short is left out.

    Raises:
        UserError: names the file and the line that is no line of a record.
    """
    path = pathlib.Path(workdir) / "metrics.jsonl"
    try:
        texts = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    lines = []
    for number, text in enumerate(texts[:-1], 1):  # the last is empty, or cut short
        try:
            line = from_json(json.loads(text))
            numbers = all(isinstance(v, float | int) for v in line.values())
            if not numbers or not isinstance(line["step"], int) or "time" not in line:
                raise ValueError
        except (ValueError, KeyError, AttributeError, RecursionError):
            raise UserError(
                f"{path}, line {number}, is no line of a run's record: mend it, or move the "
                "file away to go on with a new record."
            ) from None
        lines.append(line)
    return lines


def _json_line(line: Mapping[str, float]) -> str:
    return json.dumps(to_json(line), allow_nan=False) + "\n"


class MetricsWriter:
    """Append one line for each log step; the file never has a gap or a repeat.

    A killed run may have written lines after its last checkpoint, that of `resume_step`. They
    go to metrics.cut.jsonl when it resumes, because the resumed run makes them again.

    Attributes:
        kept: the lines that the file began with.
    """

    def __init__(self, workdir: str | os.PathLike, resume_step: int):
        workdir = pathlib.Path(workdir)
        path = workdir / "metrics.jsonl"
        kept, cut = [], []
        for line in read_metrics(workdir):
            # A run from the beginning keeps nothing, not even its step 0.
            keep = resume_step > 0 and line["step"] <= resume_step
            (kept if keep else cut).append(line)
        if cut:
            with open(workdir / "metrics.cut.jsonl", "a") as file:
                file.writelines(map(_json_line, cut))
        write_text(path, "".join(map(_json_line, kept)))
        self._file = open(path, "a")
        self.kept = kept

    def write(self, line: dict) -> None:
        """Append a line of scalars; it needs "step" and "time" (seconds since 1970)."""
        self._file.write(_json_line(line))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
