"""The identity of a run, from its own files, and which runs differ only in their seed."""

import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from eval.results import RESULTS, run_folder
from input_pipeline.pairs.training import pairs_info
from sp_jax.errors import UserError
from sp_jax.json_file import read_json
from sp_jax.train.folders import explain_no_run

SP, AP = "SP", "AP"  # semantic pairs, augmentation pairs
# Facts in the order in which they name a column; the others follow alphabetically.
_FIRST = ("kind", "method", "model.name", "pairs.by", "epochs", "batch_size", "step")
# A fact that follows from another one is not named, unless it differs where that is equal.
_FOLLOWS = {
    "kind": ("data.pairing", "data.semantic_fraction", "file"),
    "method": ("method_options.", "optimizer.", "augment.", "augment_second."),
    "model.name": ("model.",),
}


class Run(NamedTuple):
    """A training at one of its steps, or a file of weights.

    Attributes:
      path: a run's folder, a checkpoint in it, or a file.
      facts: its identity, without its seed.
      seed: of the run; None for a file.
      step: of its weights.
      total: the steps of the whole training; None if that is not known.
      code: the versions that trained it.
      start: the path of the weights that it started from; "" for random ones.
    """

    path: pathlib.Path
    facts: dict[str, Any]
    seed: int | None
    step: int
    total: int | None
    code: str
    start: str = ""

    @property
    def folder(self) -> pathlib.Path:
        """The folder of its results."""
        return run_folder(self.path)

    @property
    def kind(self) -> str:
        """The kind of its pairs; for a file its name."""
        return self.facts["kind"]

    def at(self, step: int) -> "Run":
        """The same training at another step; the step is a fact unless it is the last one."""
        facts = {name: fact for name, fact in self.facts.items() if name != "step"}
        if step != self.total and self.seed is not None:
            of = "" if self.total is None else f" of {self.total}"
            facts["step"] = f"step {step}{of}"
        return self._replace(facts=facts, step=step)


class Column(NamedTuple):
    """Runs that differ in nothing but their seed.

    Attributes:
      label: what sets them apart from the other columns.
      runs: one for each seed.
      notes: what a reader has to know about them.
    """

    label: str
    runs: tuple[Run, ...]
    notes: tuple[str, ...] = ()


def read_run(path: str | os.PathLike) -> Run:
    """Read what was trained, from config.json, pairs.csv and the checkpoint.

    Args:
      path: a run's folder (its newest checkpoint), one `checkpoints/STEP`, or a file.

    Raises:
      UserError: there is nothing at the path, or a file of the run is damaged.
    """
    # Imported late: reading the pages' other parts needs no jax.
    from sp_jax.train import checkpoint, writer
    from sp_jax.weights import find_file

    path = pathlib.Path(path)
    if file := find_file(path):
        name = path.name.removesuffix(RESULTS)
        return Run(path, {"kind": name, "file": str(file)}, None, 0, None, "")
    folder, steps = run_folder(path), ()
    if path.parent.name == "checkpoints" and path.name.isdecimal():
        steps = (int(path.name),)
    elif (folder / "checkpoints").is_dir():
        steps = checkpoint.find_steps(folder / "checkpoints")
    meta = checkpoint.read_meta(folder / "checkpoints" / str(steps[0])) if steps else {}
    if not meta and not (folder / "config.json").is_file():
        raise UserError(explain_no_run(path))
    config = meta["config"] if meta else read_config(folder)
    lines = [] if steps else writer.read_metrics(folder)
    step = steps[0] if steps else lines[-1]["step"] if lines else 0
    pairs = pairs_info(folder, meta.get("pairs"))
    run = meta.get("run", {})
    versions = meta.get("versions", {})
    return describe(path, config, pairs, step, run.get("total_steps"), versions)


def describe(
    path: pathlib.Path,
    config: Mapping[str, Any],
    pairs: Mapping[str, Any],
    step: int,
    total: int | None,
    versions: Mapping[str, str],
) -> Run:
    """A training, from the content of its files.

    Args:
      path: where they are.
      config: of the training, nested.
      pairs: of its table; see `pairs_info`.
      step: of the weights.
      total: steps of the whole training, where that is known.
      versions: of the code and the packages that it uses.
    """
    from sp_jax.train.identity import run_facts

    facts = run_facts(config, pairs)
    facts["kind"] = _kind(facts, pairs.get("same"))
    code = ", ".join(f"{name} {version}" for name, version in versions.items())
    start = config.get("init", "")
    return Run(path, facts, config["seed"], step, total, code, start).at(step)


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
    """The config of a pre-training from its folder.

    Raises:
      UserError: config.json is not there, damaged, or of another program.
    """
    path = workdir / "config.json"
    config = read_json(path)
    # Keys that the pages show.
    needed = {"data": ("store", "image_size", "dir"), "model": ("name",), "evals": ()}
    for section, keys in needed.items():
        found = config.get(section)
        if not isinstance(found, dict) or not set(keys) <= set(found):
            raise UserError(
                f"{path} is not a config of sp_jax.main, or is damaged: check its {section}."
            )
    if "seed" not in config or "method" not in config:
        raise UserError(f"{path} is not a config of sp_jax.main: it names no method.")
    return config


def _kind(facts: Mapping[str, Any], same: float | None) -> str:
    """The kind of a run's pairs; `same` is the share of its pairs with two equal images."""
    pairing = facts["data.pairing"]
    if pairing == "both":
        return f"{AP}, both images"
    if pairing == "augmented" or same == 1:
        return AP
    share = 1.0 - (same or 0.0)
    if facts["data.semantic_schedule"]:
        return "SP and AP by schedule"
    if pairing == "mixed":
        share *= facts["data.semantic_fraction"]
    return SP if share == 1 else f"{100 * share:.3g} % SP"


def make_columns(runs: Sequence[Run]) -> list[Column]:
    """Group runs that differ only in their seed, and name each group by how it differs.

    Runs belong to one group if all of their facts are equal. If a seed is there twice, the
    first run counts. A note says so, and a note names different versions of the code.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        facts = {name: fact for name, fact in run.facts.items() if fact is not None}
        key = json.dumps(facts, sort_keys=True, default=str)
        groups.setdefault(key, []).append(run)
    labels = name_groups([group[0].facts for group in groups.values()])
    return list(map(_column, labels, groups.values()))


def _column(label: str, group: Sequence[Run]) -> Column:
    by_seed: dict[int | None, Run] = {}
    notes = []
    for run in group:
        if by_seed.setdefault(run.seed, run) is not run:
            notes.append(
                f"Seed {run.seed} is there twice: {by_seed[run.seed].path} is used, "
                f"{run.path} is not."
            )
    starts = dict.fromkeys(run.start for run in group if run.start)
    notes += [f"Started from the weights in {path}." for path in starts]
    versions = dict.fromkeys(run.code for run in by_seed.values())
    if len(versions) > 1:
        text = "; ".join(version or "unknown" for version in versions)
        notes.append(f"Trained by different versions of the code: {text}.")
    return Column(label, tuple(by_seed.values()), tuple(notes))


def find_differences(groups: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A row for each fact in which groups differ: its name, and its value in each."""
    shown = [_spread(facts) for facts in groups]
    names = sorted(set().union(*shown), key=_order)
    rows = [[name, *(_text(facts.get(name)) for facts in shown)] for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]


def name_groups(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name each group of runs by the facts in which they differ; all names are different."""
    rows = find_differences(groups)
    named = [row for row in rows if not _follows(row, rows)]
    if not named:
        return [facts.get("kind", "") for facts in groups]
    names = []
    for place in range(1, len(groups) + 1):
        parts = [_part(row[0], row[place]) for row in named]
        names.append(", ".join(parts))
    return names


def _spread(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts, with one fact for each entry of the pairs' recipe."""
    facts = dict(facts)
    recipe = json.loads(facts.pop("pairs", "{}"))
    while recipe.get("by") == "augmented":  # that is what the kind says
        recipe = recipe["of"]
    names: Iterable[tuple[str, Any]] = recipe.items()
    return facts | {f"pairs.{name}": value for name, value in names}


def _order(name: str) -> tuple[int, str]:
    return (_FIRST.index(name) if name in _FIRST else len(_FIRST), name)


def _follows(row: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether a fact is equal wherever the fact that it follows from is equal."""
    for above, prefixes in _FOLLOWS.items():
        others = [other for other in rows if other[0] == above]
        if others and row[0] != above and row[0].startswith(prefixes):
            pairs = set(zip(others[0][1:], row[1:], strict=True))
            return len(pairs) == len(set(others[0][1:]))
    return False


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _part(name: str, value: str) -> str:
    """The form of a fact in a column's name."""
    if name == "kind":
        return value
    if name == "step":
        return value or "finished"
    if name == "init_weights":
        return f"init={value[:8] or 'random'}"
    if name == "images":  # a fingerprint
        return f"images={value[:8]}"
    return f"{name.removesuffix('.by')}={value or 'default'}"
