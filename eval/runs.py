"""Runs to compare: what their folders say, and tables of it."""

import csv
import io
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from eval.results import RESULTS, read_result
from sp_jax.errors import UserError
from sp_jax.json_file import read_json
from sp_jax.train.folders import explain_no_run

LABELS = {"semantic": "SP (semantic pairs)", "augmented": "AP (augmentation pairs)"}


class RunFolder(NamedTuple):
    """What a run's folder says of itself."""

    workdir: pathlib.Path
    label: str
    config: dict[str, Any]
    lines: list[dict[str, Any]]
    results: dict[str, dict[str, Any]]


def read_run(workdir: str | os.PathLike) -> RunFolder:
    """Read config.json, metrics.jsonl and eval/*.json.

    Raises:
        UserError: the folder holds no finished run, or one of its files is damaged.
    """
    # Imported here: pictures of other things than runs need no trainer.
    from sp_jax.train.writer import read_metrics

    workdir = pathlib.Path(workdir)
    if not (workdir / "config.json").is_file():
        raise UserError(explain_no_run(workdir))
    config, lines = read_config(workdir), read_metrics(workdir)
    paths = sorted((workdir / "eval").glob("*.json"))
    results = {path.stem: read_result(path) for path in paths}
    if not lines or not results:
        raise UserError(
            f"{workdir} holds no evaluated run: let it end first, with python -m "
            f"sp_jax.main --config=… --workdir={workdir}."
        )
    return RunFolder(workdir, label_of(workdir), config, lines, results)


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
    """The config of a pre-training from its folder.

    Raises:
        UserError: config.json is not there, damaged, or of another program.
    """
    path = workdir / "config.json"
    config = read_json(path)
    # What the pages speak of.
    needed = {"data": ("store", "image_size", "dir"), "model": ("name",), "evals": ()}
    for section, keys in needed.items():
        found = config.get(section)
        if not isinstance(found, dict) or not set(keys) <= set(found):
            raise UserError(
                f"{path} is no config of sp_jax.main, or damaged: look at its {section}."
            )
    if "seed" not in config or "method" not in config:
        raise UserError(f"{path} is no config of sp_jax.main: it names no method.")
    return config


def label_of(workdir: pathlib.Path) -> str:
    """The kind of pairs that a run trained on; or the folder's, or the file's, name.

    Raises:
        UserError: the run's config.json is damaged.
    """
    path = workdir / "config.json"
    data = read_json(path).get("data") if path.is_file() else None
    pairing = data.get("pairing") if isinstance(data, dict) else None
    if not isinstance(pairing, str):
        return workdir.name.removesuffix(RESULTS)
    return LABELS.get(pairing, pairing)


def by_label(
    things: Iterable[Any], labels: Iterable[str] | None = None
) -> dict[str, list[Any]]:
    """Things by these labels, or by their own: those of one label differ in their seed."""
    groups: dict[str, list[Any]] = {}
    for thing, label in zip(things, labels or (x.label for x in things), strict=True):
        groups.setdefault(label, []).append(thing)
    return groups


def headline_of(name: str, runs: Sequence[RunFolder]) -> str:
    """The most important number of an evaluation: its key, in the first run that has it."""
    found = [run.results[name]["headline"] for run in runs if name in run.results]
    return found[0][0].name if found and found[0] else ""


def mean_text(values: Sequence[float], digits: int = 3) -> str:
    """Mean ± sample standard deviation; one value alone; nothing for none."""
    if not values:
        return ""
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def format_csv(table: Sequence[Sequence[Any]]) -> str:
    """The table as the text of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    return text.getvalue()


def format_table(table: Sequence[Sequence[str]]) -> str:
    """The table in aligned columns, for a terminal."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in table
    )
