"""Results on disk: one JSON file an evaluator in the run's folder."""

import importlib.metadata
import json
import os
import pathlib
import platform
import tempfile
from collections.abc import Mapping
from typing import Any

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
RESULTS = ".results"  # what a folder has behind the name of the file it is about


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that make a number what it is."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def run_folder(checkpoint: str | os.PathLike[str]) -> pathlib.Path:
    """Where results are kept: the run's folder, from itself or from a checkpoint in it.

    Those of a file of weights are kept beside it, in the folder FILE.results: no run and no
    other file has it.
    """
    path = pathlib.Path(checkpoint).absolute()
    if path.is_file():
        return path.with_name(path.name + RESULTS)
    if path.name == "checkpoints":
        return path.parent
    if path.parent.name == "checkpoints" and path.name.isdecimal():
        return path.parent.parent
    return path


def write_result(
    workdir: str | os.PathLike[str],
    name: str,
    result: Mapping[str, float],
    *,
    protocol: str,
    step: int,
) -> pathlib.Path:
    """Write `eval/NAME.json` in the run's folder, whole or not at all.

    Args:
      workdir: the run's folder.
      name: name of the evaluation, e.g. "knn_subcategory".
      result: what the evaluator returned.
      protocol: what `describe` says about it.
      step: training step of the backbone.

    Returns:
      The path of the file.
    """
    path = pathlib.Path(workdir) / "eval" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "result": {key: float(value) for key, value in result.items()},
        "protocol": protocol,
        "step": int(step),
        "versions": versions(),
    }
    # A temporary file beside it, then a rename: a killed run leaves no half file.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{name}.")
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(content, file, indent=2)
            file.write("\n")
        # mkstemp makes the file private; results are as readable as the run.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path


def evaluate_once(
    module: Any,
    options: Mapping[str, Any],
    extractor: Any,
    checkpoint: str | os.PathLike[str],
    name: str,
) -> dict[str, Any]:
    """What eval/NAME.json says of a checkpoint, if it was measured the same way, or anew.

    That of a file of weights is measured each time: nothing tells one file from another.

    Args:
      module: an evaluator module.
      options: its options.
      extractor: an `eval.features.Extractor` of the loaded checkpoint.
      checkpoint: its path.
      name: of the result.

    Returns:
      The content of the file: "result", "protocol", "step", "versions".
    """
    folder, step = run_folder(checkpoint), extractor.backbone.info["step"]
    path, protocol = folder / "eval" / f"{name}.json", module.describe(**options)
    if path.is_file() and not pathlib.Path(checkpoint).is_file():
        written = json.loads(path.read_text(encoding="utf-8"))
        if (written["protocol"], written["step"]) == (protocol, step):
            return written
    result = module.create(**options)(extractor, step)
    write_result(folder, name, result, protocol=protocol, step=step)
    return json.loads(path.read_text(encoding="utf-8"))
