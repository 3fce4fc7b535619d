"""Explain why a path holds no run."""

import os
import pathlib


def explain_no_run(path: str | os.PathLike[str]) -> str:
    """Say in a sentence why there is no run at a path, and what to give instead."""
    path = pathlib.Path(path)
    if path.is_file():
        return f"{path} is a file: give the folder of a run."
    if not path.is_dir():
        return f"There is no folder {path}: give the folder of a run."
    for depth in ("*", "*/*"):
        runs = sorted(config.parent for config in path.glob(f"{depth}/config.json"))
        if runs:
            names = ", ".join(map(str, runs[:6])) + (", …" if runs[6:] else "")
            return f"{path} is not a run but a folder of runs: give one of {names}."
    return f"{path} holds no run: give a folder that python -m sp_jax.main made."
