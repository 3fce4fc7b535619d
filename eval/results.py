"""Results on disk: one JSON file an evaluator in the run's folder."""

import contextlib
import importlib.metadata
import json
import os
import pathlib
import platform
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from eval.evaluator import Evaluator, Number
from sp_jax.errors import UserError
from sp_jax.files import write_text
from sp_jax.json_file import from_json, read_json, to_json

if TYPE_CHECKING:  # Reading results needs no jax.
    from sp_jax.features import Extractor

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
RESULTS = ".results"  # what a folder has behind the name of the file it is about
# The headline of files from before evaluators declared theirs: the first that one has.
OLD_HEADLINES = (
    Number("accuracy", percent=True),
    Number("top1", percent=True),
    Number("cosine"),
    Number("rankme"),
    Number("cka", "neither"),
    Number("ap", percent=True),
)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that make a number what it is."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def run_folder(checkpoint: str | os.PathLike[str]) -> pathlib.Path:
    """Where results are kept: the run's folder, from itself or from a checkpoint in it.

    Those of a file of weights are kept beside it, in the folder FILE.results.
    """
    path = pathlib.Path(checkpoint).absolute()
    if path.is_file():
        return path.with_name(path.name + RESULTS)
    if path.name == "checkpoints":
        return path.parent
    if path.parent.name == "checkpoints" and path.name.isdecimal():
        return path.parent.parent
    return path


def identify(evaluate: Evaluator, extractor: "Extractor", step: int) -> dict[str, Any]:
    """What a result belongs to, beside its numbers: the arguments of `write_result`."""
    return {
        "protocol": evaluate.protocol,
        "headline": evaluate.headline,
        "step": int(step),
        "weights": extractor.fingerprint,
        "images": evaluate.fingerprints(),
    }


def write_result(
    workdir: str | os.PathLike[str],
    name: str,
    result: Mapping[str, float],
    *,
    protocol: str,
    headline: Sequence[Number],
    step: int,
    weights: str | None,
    images: Mapping[str, str],
) -> pathlib.Path:
    """Write `eval/NAME.json` in the run's folder, whole or not at all.

    Args:
      workdir: the run's folder.
      name: name of the evaluation, e.g. "knn_subcategory".
      result: what the evaluator returned; what is NaN or infinite becomes null.
      protocol: how it was measured, in one line.
      headline: the numbers that tables show, the most important one first.
      step: training step of the backbone.
      weights: fingerprint of the backbone; None: not known.
      images: each split that was read, and its fingerprint.

    Returns:
      The path of the file.

    Raises:
      OSError: it cannot be written.
    """
    path = pathlib.Path(workdir) / "eval" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "result": to_json({name: float(value) for name, value in result.items()}),
        "protocol": protocol,
        "headline": [number._asdict() for number in headline],
        "step": int(step),
        "weights": weights,
        "images": dict(images),
        "versions": versions(),
    }
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
    return path


def read_result(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `write_result` wrote; null is NaN again.

    Returns:
      "result", "protocol", "step", "versions", and "headline", a tuple of numbers; "weights"
      and "images" if the file has them.

    Raises:
      UserError: names the file: it is missing, damaged, or holds no result.
    """
    content = read_json(path)
    result = content.get("result")
    sound = (
        isinstance(result, dict)
        and all(type(value) in (int, float, type(None)) for value in result.values())
        and isinstance(content.get("protocol"), str)
        and isinstance(content.get("step"), int)
        and isinstance(content.setdefault("versions", {}), dict)
    )
    try:
        if "headline" in content:
            headline = tuple(Number(**number) for number in content["headline"])
        else:
            headline = tuple(x for x in OLD_HEADLINES if x.name in result)[:1]
    except TypeError:
        sound = False
    if not sound:
        raise UserError(
            f"{path} holds no result of an evaluation: move it away, or evaluate again."
        )
    numbers = {name: float(value) for name, value in from_json(result).items()}
    return content | {"result": numbers, "headline": headline}


def evaluate_once(
    evaluate: Evaluator,
    extractor: "Extractor",
    checkpoint: str | os.PathLike[str],
    name: str,
) -> dict[str, Any]:
    """What eval/NAME.json says of these weights and these images, or a new measurement.

    It is measured again unless protocol, step, weights and images are those of the file.

    Args:
      evaluate: an evaluator.
      extractor: of the loaded checkpoint.
      checkpoint: its path.
      name: of the result.

    Returns:
      See `read_result`.
    """
    folder, step = run_folder(checkpoint), extractor.backbone.info["step"]
    path, about = folder / "eval" / f"{name}.json", identify(evaluate, extractor, step)
    if path.is_file() and about["weights"] is not None:
        try:
            written = read_result(path)
        except UserError as error:
            print(f"{error} It is measured again.", file=sys.stderr)
        else:
            # Files from before there were headlines are used again, too.
            written["headline"] = about["headline"]
            if all(written.get(key) == value for key, value in about.items()):
                return written
    result = evaluate(extractor, step)
    return read_result(write_result(folder, name, result, **about))


class Result(NamedTuple):
    name: str
    path: pathlib.Path
    content: dict
    untrained: bool
