"""Checks of a config, before anything is compiled."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from sp_jax import cli
from sp_jax.config import OPEN_SECTIONS, PAIRINGS, flatten, get_config
from sp_jax.domains import TRAINING, check_domains
from sp_jax.errors import UserError


def check_keys(
    config: Mapping[str, Any],
    schema: Mapping[str, Any],
    prefix: str = "config",
    base: str = "configs.common",
) -> None:
    """Raise UserError if a key is unknown or missing, by the schema of the module `base`."""
    for name in config:
        if name not in schema:
            known = ", ".join(sorted(schema))
            near = nearest_key(f"{prefix}.{name}", schema, prefix)
            hint = f" did you mean {near}?" if near else ""
            message = f"There is no {prefix}.{name};{hint} {prefix} has: {known}."
            raise UserError(message)
    for name, value in schema.items():
        if name not in config:
            raise UserError(
                f"{prefix}.{name} is missing: start the config file from "
                f"{base}.get_config()."
            )
        if not isinstance(value, Mapping):
            continue
        if not isinstance(config[name], Mapping):
            raise UserError(
                f"{prefix}.{name} is {config[name]!r}, but it is a section: set its keys, "
                f"{', '.join(f'{prefix}.{name}.{key}' for key in value) or 'if any'}."
            )
        if prefix != "config" or name not in OPEN_SECTIONS:
            check_keys(config[name], value, f"{prefix}.{name}", base)


def nearest_key(wrong: str, schema: Mapping[str, Any], prefix: str) -> str | None:
    """The key of a section that a wrong one, such as "config.lr", most likely stands for."""
    keys = [f"{prefix}.{key}" for key in flatten(schema)]
    word = wrong.rpartition(".")[2]
    last = {key: key.rpartition(".")[2] for key in keys}
    initials = {key: "".join(part[0] for part in last[key].split("_")) for key in keys}
    for names in (last, initials):
        if found := [key for key, name in names.items() if name == word]:
            return found[0]
    close = difflib.get_close_matches(word, last.values(), 1, cutoff=0.75)
    return next((key for key in keys if close and last[key] == close[0]), None)


def check_training(config: Mapping[str, Any]) -> None:
    """Raise UserError for wrong keys, numbers outside their domains, paths in buckets."""
    check_keys(config, get_config().to_dict())
    check_domains(config, TRAINING)
    if config["data"]["pairing"] not in PAIRINGS:
        raise UserError(
            f"config.data.pairing is {config['data']['pairing']!r}: use one of "
            f"{', '.join(PAIRINGS)}."
        )
    values = flatten(config).values()
    cli.check_paths(value for value in values if isinstance(value, str))
    for name, options in config["evals"].items():
        if not isinstance(options, Mapping) or "type" not in options:
            raise UserError(
                f"config.evals.{name} needs a type, such as type='knn', and its options."
            )


def or_user_error(make: Callable, *args: Any, **kwargs: Any) -> Any:
    """Call the library; its ValueError or TypeError becomes a UserError about the config."""
    try:
        return make(*args, **kwargs)
    except (ValueError, TypeError) as error:
        raise UserError(f"The config does not fit: {error}") from error


def check_devices(
    batch_size: int, devices: int, chunks: int = 1, fsdp: int = 1
) -> None:
    """Raise UserError unless batch, chunks and state can be split evenly over the devices."""
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
    # Values that are not numbers are refused where the chunks are made.
    if isinstance(chunks, int) and chunks > 1 and batch_size % (devices * chunks):
        raise UserError(
            f"config.model.chunks is {chunks}, but {devices} devices cannot share "
            f"{chunks} equal parts of config.batch_size={batch_size} evenly: use a batch "
            f"that is a multiple of {devices * chunks}, or fewer chunks."
        )
