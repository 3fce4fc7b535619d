"""Checks of a config and of a run's folder, before anything is compiled."""

import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from sp_jax.errors import UserError

# Sections whose keys are not fixed: a method's options, a backbone's, the evaluators, a
# detector's.
OPEN_SECTIONS = ("method_options", "model", "evals", "detector")

# What may change between the start of a run and its resumption: nothing that touches
# the parameters.
FREE_TO_CHANGE = (
    "profile",
    "evals",
    "data.dir",
    "data.placement",
    "data.prefetch",
    "data.workers",
    "checkpoint",
    "fsdp",
    "steps_per_call",
    "test_batch_size",
    "test_every",
    "checkpoint_of_backbone",
)


def check_keys(
    config: Mapping[str, Any],
    schema: Mapping[str, Any],
    prefix: str = "config",
    base: str = "configs.common",
) -> None:
    """Compare a config's keys with those of the one that all start from.

    Args:
        config: to be checked.
        schema: the other one.
        prefix: what the words of an error put before a key.
        base: the module that made the schema.

    Raises:
        UserError: a key is unknown or missing.
    """
    for name in config:
        if name not in schema:
            known = ", ".join(sorted(schema))
            raise UserError(f"There is no {prefix}.{name}; {prefix} has: {known}.")
    for name, value in schema.items():
        if name not in config:
            raise UserError(
                f"{prefix}.{name} is missing: start the config file from "
                f"{base}.get_config()."
            )
        if isinstance(value, Mapping) and not (
            prefix == "config" and name in OPEN_SECTIONS
        ):
            check_keys(config[name], value, f"{prefix}.{name}", base)


def check_values(config: Mapping[str, Any]) -> None:
    """Check the numbers that only the loop reads.

    Raises:
        UserError: one is out of range.
    """
    if config["steps_per_call"] < 0:
        raise UserError(
            f"config.steps_per_call is {config['steps_per_call']}: give 0 or more."
        )
    check_loop(config, "image_size", "batch_size", "epochs")
    for name, options in config["evals"].items():
        if not isinstance(options, Mapping) or "type" not in options:
            raise UserError(
                f"config.evals.{name} needs a type, such as type='knn', and its options."
            )


def check_loop(config: Mapping[str, Any], *positive: str) -> None:
    """Check the intervals of the log and the checkpoints, and other numbers.

    Args:
        config: of any program that trains.
        positive: keys of further numbers that have to be above 0, such as "data.max_boxes".

    Raises:
        UserError: one is out of range.
    """
    flat = flatten(config)
    for name in (*positive, "log_every", "checkpoint.every"):
        if flat[name] <= 0:
            raise UserError(f"config.{name} is {flat[name]}: give a number above 0.")
    if flat["checkpoint.keep_last"] < 2:
        raise UserError(
            f"config.checkpoint.keep_last is {flat['checkpoint.keep_last']}: keep "
            "at least 2, so that one is left if the newest is damaged."
        )


def or_user_error(make: Callable, *args: Any, **kwargs: Any) -> Any:
    """Call the library, whose errors about a value are the config's fault here.

    Raises:
        UserError: it raised ValueError or TypeError.
    """
    try:
        return make(*args, **kwargs)
    except (ValueError, TypeError) as error:
        raise UserError(f"The config does not fit: {error}") from error


def check_devices(
    batch_size: int, devices: int, chunks: int = 1, fsdp: int = 1
) -> None:
    """Check that batch, chunks and state can be split evenly over the devices.

    Raises:
        UserError: one cannot.
    """
    if fsdp < 1 or devices % fsdp:
        raise UserError(
            f"config.fsdp is {fsdp}, but there are {devices} devices: use a divisor of "
            "their number."
        )
    if batch_size % devices:
        near = max(devices, batch_size - batch_size % devices)
        raise UserError(
            f"config.batch_size is {batch_size}, which {devices} devices cannot share "
            f"evenly: use a multiple of {devices}, such as {near}."
        )
    # What is no number of chunks at all is refused where they are made.
    if isinstance(chunks, int) and chunks > 1 and batch_size % (devices * chunks):
        raise UserError(
            f"config.model.chunks is {chunks}, but {devices} devices cannot share "
            f"{chunks} equal parts of config.batch_size={batch_size} evenly: use a batch "
            f"that is a multiple of {devices * chunks}, or fewer chunks."
        )


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts to one, whose names have dots."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{path}.")
        else:
            flat[path] = value
    return flat


def claim_workdir(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Write config.json into a new run's folder, or check that it is the same run's.

    Raises:
        UserError: the folder holds a run of another config.
    """
    path = workdir / "config.json"
    new = json.loads(json.dumps(config))  # tuples become lists, as in the file
    if path.is_file():
        try:
            old = json.loads(path.read_text())
        except json.JSONDecodeError:
            raise UserError(
                f"{path} is not readable: restore it, or use another --workdir."
            ) from None
        before, after = flatten(old), flatten(new)
        for name in sorted(before | after):
            if name.startswith(tuple(f"{n}." for n in FREE_TO_CHANGE)):
                continue
            if name in FREE_TO_CHANGE or before.get(name) == after.get(name):
                continue
            raise UserError(
                f"{workdir} holds a run with config.{name} = {before.get(name)!r}, but "
                f"now it is {after.get(name)!r}: use another --workdir, or the config "
                "of that run."
            )
    workdir.mkdir(parents=True, exist_ok=True)
    temporary = workdir / f".config.json.{os.getpid()}"
    temporary.write_text(json.dumps(new, indent=2) + "\n")
    os.replace(temporary, path)
