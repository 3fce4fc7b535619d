"""Runs to compare: what their folders say, and tables of it."""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from eval.results import RESULTS
from sp_jax.errors import UserError

LABELS = {"semantic": "SP (semantic pairs)", "augmented": "AP (augmentation pairs)"}


class Run(NamedTuple):
    """What a run's folder says of itself."""

    workdir: pathlib.Path
    label: str
    config: dict[str, Any]
    lines: list[dict[str, Any]]
    results: dict[str, dict[str, Any]]


def read_run(workdir: str | os.PathLike) -> Run:
    """Read config.json, metrics.jsonl and eval/*.json.

    Raises:
        UserError: the folder holds no finished run.
    """
    # Imported here: pictures of other things than runs need no trainer.
    from sp_jax.train.writer import read_metrics

    workdir = pathlib.Path(workdir)
    lines = read_metrics(workdir)
    results = {
        path.stem: json.loads(path.read_text())
        for path in sorted((workdir / "eval").glob("*.json"))
    }
    if not (workdir / "config.json").is_file() or not lines or not results:
        raise UserError(
            f"{workdir} holds no evaluated run: train it first, with "
            f"python -m sp_jax.main --config=… --workdir={workdir}."
        )
    config = json.loads((workdir / "config.json").read_text())
    return Run(workdir, label_of(workdir), config, lines, results)


def label_of(workdir: pathlib.Path) -> str:
    """The kind of pairs that a run trained on; or the folder's, or the file's, name."""
    try:
        config = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
        pairing = config["data"]["pairing"]
    except (OSError, ValueError, KeyError):
        return workdir.name.removesuffix(RESULTS)
    return LABELS.get(pairing, pairing)


def group_runs(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by label: those of one label differ in their seed."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.label, []).append(run)
    return groups


def mean_text(values: Sequence[float], digits: int = 3) -> str:
    """Mean ± sample standard deviation; one value alone; nothing for none."""
    if not values:
        return ""
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def format_table(table: Sequence[Sequence[str]]) -> str:
    """The table in aligned columns, for a terminal."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in table
    )
