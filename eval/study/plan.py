"""From a study's config to the runs and their commands; every mistake shows here."""

import hashlib
import inspect
import json
import pathlib
import re
import string
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

import eval as evaluators
from configs.studies import common
from eval.task import images_as
from sp_jax import validate
from sp_jax.config import load_config
from sp_jax.errors import UserError

DETECTION = "detection"  # the type of evaluation that trains
PLACES = ("folder", "after", "seed")  # places that are filled in when a command starts
OF_RUN = ("minutes", "hours", "images_per_sec", "precision")  # measures "run/…"
UNTRAINED = "untrained"  # name that claims may use besides the arms
FIGURES = ("bars", "lines", "invariance", "detection")
FIGURE_KEYS = ("kind", "x", "series", "result")
Study = Mapping[str, Any]  # what `read_study` returns


class Command(NamedTuple):
    """A program that makes a part of a run.

    Attributes:
        name: "train", or of a preparation or an evaluation; its log is NAME.log.
        words: module and flags, in which `PLACES` stand for a run's own.
        images: each split that an evaluation reads, and its fingerprint; None: not known.
    """

    name: str
    words: tuple[str, ...]
    images: dict[str, str] | None = None


class Job(NamedTuple):
    """One run of an arm, and all that is measured on it.

    Attributes:
        arm: name of the arm.
        seed: of the run; None: the weights are ready, and the same for every seed.
        folder: of the run, below the folder of all runs.
        after: folder of the run that has to be there before; "" for none.
        commands: that make it, in order.
        label: "" for a run; else that of its untrained network, which is measured.
    """

    arm: str
    seed: int | None
    folder: str
    after: str
    commands: tuple[Command, ...]
    label: str = ""

    @property
    def title(self) -> str:
        """What it is in words."""
        name = self.label or self.arm
        return name if self.seed is None else f"{name}, seed {self.seed}"

    def words(self, command: Command, pool: pathlib.Path) -> list[str]:
        """Those of a command of this run, complete."""
        places = {"folder": pool / self.folder, "after": pool / self.after}
        return [word.format(**places, seed=self.seed) for word in command.words]


def read_study(config: ConfigDict) -> dict[str, Any]:
    """The study as plain dicts, checked, with the names of stores filled in.

    Args:
        config: as `configs/studies/common.py` describes it.

    Raises:
        UserError: a key, a name or a store is wrong.
    """
    plain = config.to_dict()
    schema = common.get_study().to_dict()
    if unknown := sorted(set(plain) ^ set(schema)):
        raise UserError(
            f"A study has the keys {', '.join(schema)}: look at study.{unknown[0]}."
        )
    if not plain["arms"] or not plain["measures"] or not plain["seeds"]:
        raise UserError("A study needs arms, measures and seeds.")
    if len(set(plain["seeds"])) < len(plain["seeds"]):
        raise UserError(f"study.seeds has one seed twice: {plain['seeds']}.")
    _check_keys(plain)
    for name, place in plain["stores"].items():
        if set("{}") & set(str(place)):
            raise UserError(f"study.stores.{name}={place}: use a path without braces.")
        if name in PLACES:
            raise UserError(f"study.stores.{name}: {{{name}}} has a meaning already.")
    used: set[str] = set()
    for name in ("arms", "changes", "evaluations"):
        plain[name] = _fill(plain[name], plain["stores"], used)
    if unused := sorted(set(plain["stores"]) - used):
        raise UserError(
            f"study.stores.{unused[0]} is not used by this study, which reads "
            f"{', '.join(sorted(used)) or 'no store'}."
        )
    factors = {tuple(arm["factors"]) for arm in plain["arms"].values()}
    if len(factors) > 1:
        raise UserError(f"The arms have different factors: {sorted(factors)}.")
    for name, arm in plain["arms"].items():
        arm["factors"] = {key: str(value) for key, value in arm["factors"].items()}
        commands = [words[0].rpartition(".")[2] for words in arm["prepare"]]
        commands += [*(["train"] if arm["config"] else []), *plain["evaluations"]]
        if twice := [one for one in commands if commands.count(one) > 1]:
            raise UserError(
                f"study.arms.{name}: two of its commands or evaluations are called "
                f"{twice[0]}: give each its own name."
            )
        if arm["after"] and arm["after"] not in plain["arms"]:
            raise UserError(f"study.arms.{name} comes after no arm: {arm['after']!r}.")
    _check_readings(plain)
    return plain


def _check_keys(plain: Mapping[str, Any]) -> None:
    """Check the keys of each arm, measure, claim, evaluation, and of the figure."""

    def check(where: str, one: Any, known: Iterable[str]) -> None:
        if not isinstance(one, Mapping):
            raise UserError(f"study.{where} has the keys {', '.join(known)}.")
        if unknown := sorted(set(one) - set(known)):
            hint = (
                f" Changes are {where}.changes.{unknown[0]}." if "arms" in where else ""
            )
            raise UserError(
                f"study.{where} has no key {unknown[0]!r}, but {', '.join(known)}.{hint}"
            )

    makers: dict[str, Callable] = {"arms": common.arm, "measures": common.measure}
    makers["claims"] = common.claim
    for part, maker in makers.items():
        for name, one in plain[part].items():
            check(f"{part}.{name}", one, inspect.signature(maker).parameters)
    check("figure", plain["figure"], FIGURE_KEYS)
    for name, options in plain["evaluations"].items():
        if "type" not in options:
            raise UserError(f"study.evaluations.{name} has no type, such as 'knn'.")


def _check_readings(plain: Mapping[str, Any]) -> None:
    """Check that paper, claims and figure speak of arms, measures and factors there are."""
    arms, measures = plain["arms"], plain["measures"]

    def check(where: str, names: Iterable[str], known: Mapping[str, Any]) -> None:
        for name in names:
            if name not in known:
                said = f"study.{where} speaks of {name!r}"
                raise UserError(f"{said}, but there are {', '.join(known)}.")

    for arm, row in plain["paper"].items():
        check(f"paper.{arm}", [arm], arms)
        check(f"paper.{arm}", row, measures)
    for name, claim in plain["claims"].items():
        check(f"claims.{name}", [claim["measure"]], measures)
        check(f"claims.{name}", claim["terms"], {**arms, UNTRAINED: None})
    axes = [plain["figure"][key] for key in ("x", "series") if key in plain["figure"]]
    check("figure", axes, next(iter(arms.values()))["factors"])
    if plain["figure"].setdefault("kind", "bars") not in FIGURES:
        raise UserError(f"study.figure.kind must be one of {', '.join(FIGURES)}.")


def choose_arms(study: Study, names: Collection[str]) -> dict[str, Any]:
    """The study with these arms alone, those that they wait for, and what is said of them.

    Raises:
        UserError: there is no such arm.
    """
    arms = study["arms"]
    if unknown := sorted(set(names) - set(arms)):
        known = ", ".join(sorted(arms))
        raise UserError(f"There is no arm {unknown[0]!r}: {known}.")
    kept = {one for name in names for one in _chain(arms, name)}
    return dict(study) | {
        "arms": {name: arm for name, arm in arms.items() if name in kept},
        "paper": {name: row for name, row in study["paper"].items() if name in kept},
        "claims": {
            name: claim
            for name, claim in study["claims"].items()
            if set(claim["terms"]) <= kept | {UNTRAINED}
        },
    }


def _fill(value: Any, stores: Mapping[str, str], used: set[str]) -> Any:
    """Put the stores into all strings, and their names into `used`; `PLACES` stay."""
    if isinstance(value, Mapping):
        return {name: _fill(one, stores, used) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_fill(one, stores, used) for one in value)
    if not isinstance(value, str):
        return value
    try:
        names = {name for _, name, _, _ in string.Formatter().parse(value) if name}
    except ValueError as error:
        raise UserError(
            f"{value!r}: {error}; a brace itself is written twice."
        ) from error
    used |= names
    if unknown := sorted(names - set(stores) - set(PLACES)):
        raise UserError(
            f"{value!r} speaks of {{{unknown[0]}}}, but study.stores has "
            f"{', '.join(stores) or 'none'}."
        )
    return value.format(**stores, **{name: f"{{{name}}}" for name in PLACES})


def given_in(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts to one, with dots in its names; without what is None or empty."""
    return {k: v for k, v in validate.flatten(tree).items() if v is not None}


def _changes(study: Study, arm: Mapping[str, Any]) -> dict[str, Any]:
    """Those of an arm's config: the study's and its own."""
    return given_in(study["changes"]) | given_in(arm["changes"])


def evaluation_of(config: ConfigDict, name: str) -> dict[str, Any]:
    """An evaluation of a run's config by hand: its type, options, and images as the run's."""
    options = given_in(images_as(config.data)) | config.evals[name].to_dict()
    options.pop("every_epochs", None)
    return options


def flags_of(values: Mapping[str, Any], prefix: str = "") -> tuple[str, ...]:
    """Flags of a config, or of a program (whose lists have commas)."""
    words = []
    for name, value in values.items():
        if isinstance(value, list | tuple):
            value = tuple(value) if prefix else ",".join(map(str, value))
        words.append(f"--{prefix}{name}={value}")
    return tuple(words)


def make_jobs(study: Study) -> list[Job]:
    """The runs, those that others wait for first; seed by seed, so that all arms grow."""
    arms = study["arms"]
    names = sorted(arms, key=lambda name: len(_chain(arms, name)))
    ready = [name for name in names if arms[name]["checkpoint"]]
    trained = [name for name in names if name not in ready]
    jobs = [_make_job(study, name, seed) for seed in study["seeds"] for name in trained]
    return jobs + [_make_job(study, name, None) for name in ready]


def _chain(arms: Mapping[str, Any], name: str) -> list[str]:
    """An arm, the one before it, the one before that …"""
    chain = [name]
    while after := arms[chain[-1]]["after"]:
        if after in chain:
            raise UserError(f"The arms {', '.join(chain)} wait for one another.")
        chain.append(after)
    return chain


def _make_job(study: Study, name: str, seed: int | None) -> Job:
    arm = study["arms"][name]

    def train(config: str, changes: Mapping[str, Any], workdir: str) -> tuple[str, ...]:
        words = (f"--config={config}", f"--config.seed={seed}")
        return (*words, *flags_of(changes, "config."), f"--workdir={workdir}")

    prepare = [tuple(words) for words in arm["prepare"]]
    commands = [Command(words[0].rpartition(".")[2], words) for words in prepare]
    checkpoint = ()
    if arm["config"]:
        words = train(arm["config"], _changes(study, arm), "{folder}")
        commands.append(Command("train", ("sp_jax.main", *words)))
        checkpoint = ("--checkpoint={folder}",)
    elif arm["checkpoint"]:
        checkpoint = (f"--checkpoint={arm['checkpoint']}", "--workdir={folder}")
    for title, options in study["evaluations"].items():
        own = dict(options)
        if (kind := own.pop("type")) == DETECTION:
            config, workdir = own.pop("config"), f"{{folder}}/detection/{title}"
            words = train(config, given_in(own), workdir)
        elif checkpoint:
            words = (f"--name={title}", *flags_of(own))
        else:
            continue
        program = evaluators.program_of(kind)
        commands.append(Command(title, (program, *checkpoint, *words)))
    after = _folder(study, arm["after"], seed) if arm["after"] else ""
    return Job(name, seed, _folder(study, name, seed), after, tuple(commands))


def _folder(study: Study, name: str, seed: int | None) -> str:
    """Where a run lies: studies that have the same run share it."""
    arms, parts = study["arms"], []
    for one in _chain(arms, name):
        arm = arms[one]
        changes = _changes(study, arm) if not arm["checkpoint"] else {}
        source = arm["config"] or arm["checkpoint"]
        parts.append([source, sorted(changes.items()), arm["prepare"]])
    text = json.dumps(parts, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    ready = pathlib.Path(arms[name]["checkpoint"]).name
    config = arms[name]["config"] or ready or "random"
    stem = re.sub(r"\W+", "_", config.removeprefix("configs/").replace(".py", ""))
    return f"{stem}_{digest}/{'ready' if seed is None else f'seed{seed}'}"


def config_of(study: Study, arm: Mapping[str, Any]) -> ConfigDict:
    """The config with which an arm is trained."""
    config = load_config(arm["config"])
    with config.unlocked():
        config.update_from_flattened_dict(_changes(study, arm))
    return config
