"""WebDataset shards, read in place: tar archives in which a sample's files are adjacent.

`webdataset:DIR` is a folder of .tar files, also in folders in it; `webdataset:PATTERN` such
as "DIR/train-{000000..000012}.tar" names them. A sample is what has one name up to the first
dot: an image (.jpg, .png, .webp ...), and its label, a whole number in .cls or the value of
"label" in .json, a whole number or a word; `?label=KEY` names another key of the .json. Samples
without a label are unlabelled; those without an image are passed over. A file classnames.txt
in DIR, one per line, names the numbers; without it they are their own names.

A shard belongs to the split that its folder in DIR or a word of its name says, such as
train-000000.tar or imagenet-validation-07.tar, if all say one. Ids are SHARD/NAME.
"""

import functools
import itertools
import json
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from absl import logging

from input_pipeline import text_files
from input_pipeline.stores.image_files import heic_of, is_image, key_of, split_of
from input_pipeline.stores.image_source import Source, make_meta
from input_pipeline.stores.label_values import make_classes, read_options
from input_pipeline.stores.places import (
    Member,
    Places,
    list_tar,
    make_places,
    source_of_places,
)
from sp_jax import progress
from sp_jax.errors import UserError

_NAMES = "classnames.txt"
_LAYOUT = "webdataset:DIR with .tar files, or a pattern such as DIR/a-{000..012}.tar"


class _Shards(NamedTuple):
    """Where the samples are, and which value is the label."""

    root: pathlib.Path
    paths: list[pathlib.Path]
    label: str  # a key of the .json; "" for .cls, else "label"


def scan(argument: str) -> Source:
    """The images of some shards; UserError if there are none, or one is missing."""
    place, options = read_options(argument, "label")
    root = pathlib.Path(place).expanduser()
    if root.is_dir():
        paths = sorted(path for path in root.rglob("*.tar") if path.is_file())
    else:
        paths = [pathlib.Path(name) for name in expand(os.path.expanduser(place))]
        root = pathlib.Path(os.path.commonpath([path.parent for path in paths]))
    missing = [path for path in paths if not path.is_file()]
    if missing or not paths:
        raise UserError(
            f"There is no shard {missing[0] if missing else root / '*.tar'}: write {_LAYOUT} "
            "(in quotation marks, because the shell would expand the braces)."
        )
    names = [root / _NAMES] if (root / _NAMES).is_file() else []
    label = options.get("label", "")
    return source_of_places(
        f"webdataset-{root.resolve().name}",
        f"webdataset 1 {label} {key_of(root, [*paths, *names])}",
        functools.partial(_find, _Shards(root, paths, label)),
    )


def expand(pattern: str) -> list[str]:
    """Expand a pattern with braces to names.

    Example:
      >>> expand("{a,b}-{08..10}.tar")[:4]
      ['a-08.tar', 'a-09.tar', 'a-10.tar', 'b-08.tar']
    """
    choices = []
    for text, inside in re.findall(r"([^{}]+)|\{([^{}]*)\}", pattern):
        numbers = re.fullmatch(r"(\d+)\.\.(\d+)", inside)
        if numbers:
            first, last = numbers.groups()
            width = len(first) if len(first) == len(last) or first[0] == "0" else 0
            span = range(int(first), int(last) + 1)
            choices.append([f"{number:0{width}d}" for number in span])
        else:
            choices.append(inside.split(",") if inside else [text])
    return ["".join(parts) for parts in itertools.product(*choices)]


def _find(shards: _Shards) -> tuple[dict[str, Any], Places]:
    """The meta data of all images, and their places."""
    ids: list[str] = []
    labels: list[Any] = []
    empty: list[str] = []
    splits = {path: _split_of(shards.root, path) for path in shards.paths}
    named = sorted({split for split in splits.values() if split})
    if None in splits.values() and named:
        path = next(path for path, split in splits.items() if split is None)
        raise UserError(
            f"{path} does not name a split, but others name {', '.join(named)}: rename it, "
            "as in train-000000.tar, or give a pattern for the shards of one split."
        )
    rows: dict[str, list[int]] = {split: [] for split in named}

    def parts() -> Iterator[tuple[pathlib.Path, list[Member]]]:
        for path in progress.track(shards.paths, "listing the shards", "shards"):
            shard = path.relative_to(shards.root).with_suffix("").as_posix()
            images = []
            for image, label in _read_shard(path, shards.label, empty):
                if splits[path]:
                    rows[splits[path]].append(len(ids))
                ids.append(f"{shard}/{image.name}")
                labels.append(label)
                images.append(image)
            yield path, images

    places = make_places(parts())
    if not ids:
        raise UserError(f"The shards in {shards.root} hold no images: write {_LAYOUT}.")
    if len(set(ids)) < len(ids):
        again = next(a for a, b in itertools.pairwise(sorted(ids)) if a == b)
        raise UserError(
            f"{again} in {shards.root} is there twice: give each sample its own name."
        )
    if empty:
        logging.warning(
            "%s: %d samples without an image are skipped, such as %s.",
            shards.root,
            len(empty),
            empty[0],
        )
    path = shards.root / _NAMES
    names = text_files.read_lines(path.read_bytes(), path) if path.is_file() else []
    while names and not names[-1]:
        names.pop()
    classes, shown = make_classes(labels, f"webdataset:{shards.root}", names)
    return make_meta(ids, classes, rows, shown), places


def _split_of(root: pathlib.Path, path: pathlib.Path) -> str | None:
    """The split that a shard's folder, or a word of its name, stands for."""
    *folders, name = path.relative_to(root).parts
    words = [*folders, *re.split(r"[^A-Za-z]+", name)]
    return next((split for word in words if (split := split_of(word))), None)


def _read_shard(
    path: pathlib.Path, key: str, empty: list[str]
) -> Iterator[tuple[Member, Any]]:
    """The image of each sample, and its label or None; notes the samples that have none."""
    with open(path, "rb") as file:

        def read(member: Member) -> bytes:
            file.seek(member.start)
            return file.read(member.size)

        for name, sample in itertools.groupby(list_tar(path), _sample_of):
            if name.rpartition("/")[2].startswith("__"):  # It describes the shard.
                continue
            files = {m.name[len(name) + 1 :].lower(): m for m in sample}
            # A phone's, too, where nothing reads it: then it is listed as left out.
            images = [
                m for m in files.values() if is_image(m.name) or heic_of([m.name])
            ]
            if len(images) > 1:
                raise UserError(
                    f"{path}: the sample {name} has {len(images)} images, "
                    f"{images[0].name} and {images[1].name}: write shards with one each."
                )
            if not images:
                empty.append(f"{path.name}: {name}")
                continue

            label = None
            try:
                if "cls" in files and not key:
                    label = int(read(files["cls"]))
                elif "json" in files:
                    values = json.loads(read(files["json"]))
                    label = values[key] if key else values.get("label")
                elif key:
                    raise ValueError("it has no .json")
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                wanted = f"{key!r} in its .json" if key else "a number in .cls"
                raise UserError(
                    f"{path}: the sample {name} has no label, {wanted} ({error}): correct "
                    "it, or name the key of its .json with ?label=KEY."
                ) from error
            yield images[0], label


def _sample_of(member: Member) -> str:
    """The name of a file up to the first dot after its folders."""
    folder, slash, name = member.name.rpartition("/")
    return f"{folder}{slash}{name.partition('.')[0]}"
