"""Results on disk: one JSON file for each question about a run.

`eval/NAME.json` in the run's folder; `eval/untrained/NAME.json` for the same network and seed
before training.
"""

import hashlib
import json
import os
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from eval.evaluator import Evaluator, Number
from sp_jax.errors import UserError
from sp_jax.files import check_writable, write_text
from sp_jax.json_file import from_json, read_json, to_json
from sp_jax.train.starts import now
from sp_jax.versions import describe_devices, versions

if TYPE_CHECKING:  # Reading results needs no jax.
    from sp_jax.features import Extractor

RESULTS = ".results"  # suffix of a folder that is named after a file of weights
# The headline of files from before evaluators declared theirs: the first number that is there.
OLD_HEADLINES = (
    Number("accuracy", percent=True),
    Number("top1", percent=True),
    Number("cosine"),
    Number("rankme"),
    Number("cka", "neither"),
    Number("ap", percent=True),
)
_SETS = ("cifar10", "cifar100", "stl10")  # Stores whose kind says which set they are.
_DICTS = ("options", "images", "versions")
_TEXTS = ("evaluator", "weights", "device", "date")


class Question(NamedTuple):
    """The question that a result answers; only one result of a question is kept.

    Attributes:
      evaluator: its name or import path; None in a file of an older version.
      protocol: how it measures.
      images: each split that it reads, and its fingerprint.
      step: of the backbone.
      weights: fingerprint of the backbone; None: not known.
    """

    evaluator: str | None
    protocol: str
    images: tuple[tuple[str, str], ...]
    step: int
    weights: str | None

    def digest(self) -> str:
        """SHA-256 hex."""
        return hashlib.sha256(json.dumps(self).encode()).hexdigest()

    def is_of(self, content: Mapping[str, Any]) -> bool:
        """Whether a result of `read_result` answers this question."""
        other = question_of(content)
        if other.evaluator is None:  # its protocol implies it
            other = other._replace(evaluator=self.evaluator)
        return other == self


def question_of(content: Mapping[str, Any]) -> Question:
    """The question of a result, from the output of `read_result` or `identify`."""
    images = tuple(sorted(content["images"].items()))
    about = content["step"], content["weights"]
    return Question(content["evaluator"], content["protocol"], images, *about)


class Result(NamedTuple):
    """A result of a run.

    Attributes:
      name: of its file, without the suffix.
      path: of its file.
      content: as `read_result` gives it.
      untrained: whether it is of the network before the first step.
    """

    name: str
    path: pathlib.Path
    content: dict[str, Any]
    untrained: bool


def run_folder(checkpoint: str | os.PathLike[str]) -> pathlib.Path:
    """The folder of results: the run's, from itself or from a checkpoint in it.

    Results of a file of weights are kept beside it, in the folder FILE.results.
    """
    path = pathlib.Path(checkpoint).absolute()
    if path.is_file():
        return path.with_name(path.name + RESULTS)
    if path.name == "checkpoints":
        return path.parent
    if path.parent.name == "checkpoints" and path.name.isdecimal():
        return path.parent.parent
    return path


def default_name(name: str, options: Mapping[str, Any]) -> str:
    """The name of a result from its dataset and target, as in "knn_cifar10_label".

    Args:
      name: of the evaluator.
      options: of it.

    Example:
      >>> default_name("knn", {"dataset": "folder:/data/cifar10", "target": "label"})
      'knn_cifar10_label'
      >>> default_name("knn", {"dataset": "stl10:stl10_binary.tar.gz"})
      'knn_stl10'
      >>> default_name("retrieval", {"dataset": "emoji"})
      'retrieval_emoji'
    """
    dataset = options["dataset"]
    kind, _, path = dataset.partition(":")
    if kind in _SETS:
        dataset = kind
    elif kind != "tfds" and path:
        dataset = pathlib.Path(path).absolute().name
    parts = (name, dataset, options.get("target") or "")
    return "_".join(re.sub(r"\W+", "_", part).strip("_") for part in parts if part)


def identify(evaluate: Evaluator, extractor: "Extractor", step: int) -> dict[str, Any]:
    """The identity of a result: the arguments of `write_result` besides its numbers."""
    return {
        "evaluator": evaluate.kind,
        "options": evaluate.options,
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
    evaluator: str | None = None,
    options: Mapping[str, Any] | None = None,
    untrained: bool = False,
    training: bool = False,
) -> pathlib.Path:
    """Write `eval/NAME.json` in the run's folder, completely or not at all.

    A result of another question is never overwritten: if NAME.json holds one, the new file
    is NAME_DIGEST.json, with 8 digits of the question's digest, and a line says so.

    Args:
      workdir: the run's folder.
      name: name of the evaluation, e.g. "knn_subcategory".
      result: as the evaluator returned it; NaN and infinite numbers become null.
      protocol: how it was measured, in one line.
      headline: the numbers that tables show, the most important one first.
      step: training step of the backbone.
      weights: fingerprint of the backbone; None: unknown.
      images: each split that was read, and its fingerprint.
      evaluator: its name or import path.
      options: all options of the evaluator.
      untrained: of the network before its first step: into `eval/untrained/`.
      training: measured by the training itself: it replaces the training's result of the same
        question at an earlier step, whose numbers metrics.jsonl has.

    Returns:
      The path of the file.

    Raises:
      OSError: it cannot be written.
    """
    content = {
        "result": to_json({name: float(value) for name, value in result.items()}),
        "evaluator": evaluator,
        "options": dict(options or {}),
        "protocol": protocol,
        "headline": [number._asdict() for number in headline],
        "step": int(step),
        "weights": weights,
        "images": dict(images),
        "training": training,
        "versions": versions(),
        "device": describe_devices(),
        "date": now(),
    }
    folder = _folder(workdir, untrained)
    folder.mkdir(parents=True, exist_ok=True)
    path = _find_place(folder, name, content)
    if path.stem != name:
        print(
            f"{folder / name}.json holds the result of another question: this one is written "
            f"to {path.name}.",
            file=sys.stderr,
        )
    # Options of a user's own evaluator may be anything that prints.
    text = json.dumps(content, indent=2, allow_nan=False, default=str)
    write_text(path, text + "\n")
    return path


def _folder(workdir: str | os.PathLike[str], untrained: bool) -> pathlib.Path:
    folder = pathlib.Path(workdir) / "eval"
    return folder / "untrained" if untrained else folder


def _find_place(
    folder: pathlib.Path, name: str, content: Mapping[str, Any]
) -> pathlib.Path:
    """The first file of this name that is free, damaged, or may be replaced."""
    training, asked = content["training"], question_of(content)
    if training:  # one file for all of its steps
        asked = asked._replace(step=0, weights=None)
    digest = asked.digest()
    for end in ("", f"_{digest[:8]}"):
        path = folder / f"{name}{end}.json"
        try:
            there = read_result(path)
        except UserError:  # none, or nobody can read it
            return path
        if training:
            there |= {"step": 0, "weights": None}
        # Files of older versions do not tell who wrote them.
        if asked.is_of(there) and not (training and there["training"] is False):
            return path
    return folder / f"{name}_{digest}.json"


def read_result(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a result of `write_result`; null becomes NaN again.

    Returns:
      "result", "evaluator", "options", "protocol", "headline" (a tuple of numbers), "step",
      "weights", "images", "training", "versions", "device" and "date". Values that a file of
      an older version lacks are None or empty.

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
        and all(isinstance(content.get(key) or {}, dict) for key in _DICTS)
        and all(isinstance(content.get(key) or "", str) for key in _TEXTS)
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
    known = {key: content.get(key) or {} for key in _DICTS}
    known |= {key: content.get(key) or "" for key in ("device", "date")}
    known |= {key: content.get(key) for key in ("evaluator", "weights", "training")}
    return content | known | {"result": numbers, "headline": headline}


def read_results(workdir: str | os.PathLike[str]) -> list[Result]:
    """All results of a run, sorted by name, those of the untrained network last.

    Raises:
      UserError: see `read_result`.
    """
    return [
        Result(path.stem, path, read_result(path), untrained)
        for untrained in (False, True)
        for path in sorted(_folder(workdir, untrained).glob("*.json"))
    ]


def read_newest(
    workdir: str | os.PathLike[str],
    name: str,
    *,
    untrained: bool = False,
    images: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any] | None:
    """The newest result with a name, see `read_result`; None if there is none.

    Args:
      workdir: of the run.
      name: of the result.
      untrained: of the run's first network.
      images: splits and fingerprints; only results on these images count. None: on any.
      options: only results of an evaluator with these options count.

    Raises:
      UserError: see `read_result`.
    """
    paths = sorted(_folder(workdir, untrained).glob("*.json"))
    named = re.compile(re.escape(name) + "(_[0-9a-f]{8})?")
    found = [read_result(path) for path in paths if named.fullmatch(path.stem)]
    asked = json.loads(json.dumps(dict(options or {}))).items()
    found = [
        one
        for one in found
        if images in (None, one["images"])
        # A file of an older version has fewer options.
        and all(one["options"].get(key, value) == value for key, value in asked)
    ]
    return max(found, key=lambda content: content["date"], default=None)


def evaluate_once(
    evaluate: Evaluator,
    extractor: "Extractor",
    checkpoint: str | os.PathLike[str],
    name: str,
    *,
    untrained: bool = False,
) -> dict[str, Any]:
    """The result of a file in the run's folder that answers the question, or a new one.

    It is measured again unless evaluator, protocol, step, weights and images are those of a
    file, whatever its name.

    Args:
      evaluate: an evaluator.
      extractor: of the loaded checkpoint.
      checkpoint: its path.
      name: of the result, if it is measured.
      untrained: whether the extractor is that of the network before its first step.

    Returns:
      See `read_result`.

    Raises:
      OSError: the folder cannot be written.
    """
    folder, step = run_folder(checkpoint), extractor.backbone.info["step"] or 0
    about = identify(evaluate, extractor, step)
    paths = _folder(folder, untrained).glob("*.json")
    for path in sorted(paths) if about["weights"] is not None else ():
        try:
            written = read_result(path)
        except UserError as error:
            if path.stem == name:
                print(f"{error} It is measured again.", file=sys.stderr)
            continue
        if question_of(about).is_of(written):
            # Files from before there were headlines are used again, too.
            return written | {"headline": about["headline"]}
    # A folder that cannot be written shows now, not after the work.
    place = _folder(folder, untrained)
    place.mkdir(parents=True, exist_ok=True)
    check_writable(place)
    result = evaluate(extractor, step)
    path = write_result(folder, name, result, untrained=untrained, **about)
    return read_result(path)


def evaluate_untrained(
    checkpoint: str | os.PathLike[str], evaluators: Mapping[str, Evaluator]
) -> dict[str, dict[str, Any]]:
    """Results of the same network and seed before training, measured if they are missing.

    Args:
      checkpoint: of a run, or a file of weights.
      evaluators: by the names of their results.

    Returns:
      For each name what `read_result` gives.

    Raises:
      UserError: the checkpoint cannot be loaded, or an evaluation does not fit it.
    """
    # Imported here: reading results needs no jax.
    import sp_jax
    from sp_jax.features import Extractor

    extractor = Extractor(sp_jax.load(checkpoint, untrained=True))
    return {
        name: evaluate_once(evaluate, extractor, checkpoint, name, untrained=True)
        for name, evaluate in evaluators.items()
    }
