"""starts.jsonl: each start of a program in a run's folder, with its versions and device."""

import contextlib
import datetime
import json
import os
import pathlib
from typing import Any

from sp_jax.versions import describe_command, describe_devices, versions

NAME = "starts.jsonl"


def now() -> str:
    """The date and time in ISO 8601, in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def note_start(workdir: pathlib.Path, step: int) -> None:
    """Append a line: this program trains in the folder, starting after `step` steps."""
    start = {
        "date": now(),
        "step": step,
        "command": describe_command(),
        "device": describe_devices(),
        "versions": versions(),
    }
    path = workdir / NAME
    before = path.read_bytes() if path.is_file() else b""
    cut = bool(before) and not before.endswith(b"\n")  # by a kill or a full disk
    with open(path, "a", encoding="utf-8") as file:
        file.write("\n" * cut + json.dumps(start) + "\n")


def read_starts(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The starts of a run, oldest first; empty for a run of an older version.

    Returns:
        For each start "date" (ISO 8601, UTC), "step" that it continued from (0: it is the
        first), "command", "device" and "versions".
    """
    path = pathlib.Path(workdir) / NAME
    lines = path.read_bytes().splitlines() if path.is_file() else []
    starts = []
    for line in lines:
        with contextlib.suppress(ValueError):  # a kill or a full disk cut it short
            starts.append(json.loads(line))
    return starts
