"""All keys of a config: default, what each may be, and its meaning."""

import inspect
import re

from sp_jax import config, methods, models
from sp_jax.augment import Augment
from sp_jax.config import flatten
from sp_jax.domains import TRAINING, find_domain


def read_comments(function):
    """The meaning of each key that a function sets, by the comments of its source.

    A comment stands behind the key, or above it.
    """
    found, above = {}, []
    for line in inspect.getsource(function).splitlines():
        line = line.strip()
        key = re.match(r"(?:config\.)?([a-z_]+(?:\.[a-z_]+)*) = ", line)
        if line.startswith("#"):
            above.append(line.removeprefix("#").strip())
        elif key:
            _, _, behind = line.partition("  # ")
            found[key[1]] = " ".join([*above, behind]).strip()
            above = []
        else:
            above = []
    return found


def read_arguments(thing):
    """The meaning of each argument or attribute, by a docstring in Google's style."""
    found, name = {}, ""
    lines = (inspect.getdoc(thing) or "").splitlines()
    for line in lines:
        start = re.match(r" {4}(\w+): (.*)", line)
        if start and not line.startswith(" " * 8):
            name = start[1]
            found[name] = start[2]
        elif name and line.startswith(" " * 8):
            found[name] += f" {line.strip()}"
        else:
            name = ""
    return found


def find_meanings():
    """The meaning of every key of `sp_jax.config.get_config`."""
    meanings = read_comments(config.get_config)
    view = read_arguments(Augment)
    for key in flatten(config.get_config().to_dict()):
        section, _, name = key.rpartition(".")
        if section in ("augment", "augment_second") and not meanings.get(key):
            meanings[key] = view.get(name, "")
    return meanings


def _cell(value):
    return str(value).replace("|", r"\|").replace("<", r"\<")


def _value(value):
    if value is None:
        return "the method's"
    return f"`{value!r}`" if value != "" else '`""`'


def _table(rows):
    head = ["| key | default | may be | meaning |", "|---|---|---|---|"]
    return "\n".join([*head, *(f"| {' | '.join(map(_cell, row))} |" for row in rows)])


def _domain(key, method=""):
    domain = find_domain(key, TRAINING, method)
    return "" if domain is None else str(domain)


def make_tables():
    """A table for each section of a config, each method and each kind of backbone."""
    meanings, sections = find_meanings(), {"": []}
    for key, value in flatten(config.get_config().to_dict()).items():
        section = key.rpartition(".")[0]
        row = [f"`{key}`", _value(value), _domain(key), meanings.get(key, "")]
        sections.setdefault(section, []).append(row)
    parts = []
    for section, rows in sections.items():
        parts += [f"## {section or 'The run'}", _table(rows)]
    parts.append("## method_options")
    for name in methods.NAMES:
        create = methods.get(name).create
        parts += [f"### {name}", _options(create, create, "method_options", name)]
    parts.append("## Backbones")
    for title, name in (("ResNet", "resnet50"), ("ViT", "vit_small")):
        kind = getattr(models, title, None) or getattr(models.resnet, title)
        parts += [f"### {title}", _options(models.find(name), kind, "model", "")]
    return "\n\n".join(parts)


def _options(make, documented, section, method):
    words = read_arguments(documented)
    rows = [
        [
            f"`{section}.{name}`",
            _value(one.default),
            _domain(f"{section}.{name}", method),
            words.get(name, ""),
        ]
        for name, one in inspect.signature(make).parameters.items()
        if one.default is not inspect.Parameter.empty
        and name not in ("dtype", "name", "parent")
    ]
    return _table(rows)
