"""Datasets of Hugging Face (https://huggingface.co/datasets), read by its `datasets`.

`hf:NAME` or `hf:NAME:CONFIG`, such as hf:uoft-cs/cifar10, is a set of the Hub, which the
library downloads; `hf:DIR` is a folder of parquet or arrow files, or one that the library's
`save_to_disk` wrote. Parquet is copied into the library's cache ($HF_HOME), as it always does.

The image is the only column of type Image, or `?image=COLUMN`. The label is `?label=COLUMN`,
else the column "label", else the only column of type ClassLabel: a ClassLabel, whole numbers
or words. Other ClassLabels are attributes. Splits are those of the set; ids are SPLIT/NUMBER.
"""

import functools
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.stores.image_source import Reader, Source, make_meta
from input_pipeline.stores.label_values import make_classes, read_options
from sp_jax import extras
from sp_jax.errors import UserError


class _Columns(NamedTuple):
    """The columns of a set that are used."""

    image: str
    label: str  # "" where there is none
    more: list[str]  # further labels


def scan(argument: str) -> Source:
    """The images of a dataset; UserError if it is missing, or its columns are ambiguous."""
    place, options = read_options(argument, "label", "image")
    extras.require("hf", f"hf:{place}")
    folder = pathlib.Path(place).expanduser()
    sets = _load(place, folder if folder.is_dir() else None)
    first, *others = sets
    for other in others:
        if sets[other].features != sets[first].features:
            raise UserError(
                f"hf:{place}: the splits {first} and {other} differ in their columns or "
                "class names: save them with the same ones."
            )
    columns = _choose(f"hf:{place}", sets[first].features, options)
    key = [(name, part.num_rows, str(part.features)) for name, part in sets.items()]
    used = folder.rglob("*") if folder.is_dir() else _cached(sets)
    stats = [(path.parts[-2:], path.stat()) for path in sorted(used) if path.is_file()]
    # The folder of a dataset of the Hub is named by its version, and the times say nothing.
    stamps = [(name, s.st_size, folder.is_dir() and s.st_mtime_ns) for name, s in stats]
    return Source(
        name=f"hf-{folder.resolve().name if folder.is_dir() else place}".replace(
            "/", "-"
        ).replace(":", "-"),
        key=f"hf 1 {columns} {key} {stamps}",
        meta=functools.partial(_meta, f"hf:{place}", sets, columns),
        open_reader=functools.partial(_open_reader, sets, columns.image),
    )


def _load(place: str, folder: pathlib.Path | None) -> dict[str, Any]:
    """The splits of a set, each a datasets.Dataset."""
    import datasets  # Takes seconds.

    datasets.disable_progress_bars()  # We show what is done.
    try:
        if folder is None:
            name, _, config = place.partition(":")
            found = datasets.load_dataset(name, config or None)
        elif any((folder / f).exists() for f in ("dataset_dict.json", "state.json")):
            found = datasets.load_from_disk(folder)
        else:
            found = datasets.load_dataset(os.fspath(folder))
    except MemoryError:
        raise
    except Exception as error:  # The library raises many types.
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise UserError(
            f"hf:{place} cannot be loaded ({reason.rstrip('.:')}): give the name of a "
            "dataset on https://huggingface.co/datasets or, without a network, a folder of "
            "its parquet or arrow files."
        ) from error
    return dict(found) if isinstance(found, dict) else {"all": found}


def _cached(sets: dict[str, Any]) -> list[pathlib.Path]:
    return [
        pathlib.Path(file["filename"])
        for part in sets.values()
        for file in part.cache_files
    ]


def _choose(where: str, features: Any, options: dict[str, str]) -> _Columns:
    """Which columns are used."""
    import datasets

    def of_kind(kind: type) -> list[str]:
        return [name for name, feature in features.items() if isinstance(feature, kind)]

    for name in options.values():
        if name not in features:
            raise UserError(
                f"{where} has no column {name!r} but {', '.join(features)}: choose one."
            )
    images, classes = of_kind(datasets.Image), of_kind(datasets.ClassLabel)
    if "image" in options:
        images = [options["image"]] if options["image"] in images else []
    if len(images) != 1:
        found = ", ".join(images) or f"none of {', '.join(features)}"
        raise UserError(
            f"{where}: it is not clear which column has the images ({found}): name one of "
            "type Image with ?image=COLUMN."
        )
    label = options.get("label", "label" if "label" in features else "")
    if not label and len(classes) == 1:
        (label,) = classes
    return _Columns(images[0], label, [name for name in classes if name != label])


def _meta(where: str, sets: dict[str, Any], columns: _Columns) -> dict[str, Any]:
    ids: list[str] = []
    splits: dict[str, list[int]] = {}
    for split, part in sets.items():
        splits[split] = list(range(len(ids), len(ids) + part.num_rows))
        ids += [f"{split}/{row:07d}" for row in range(part.num_rows)]
    if list(splits) == ["all"]:
        splits = {}
    features = next(iter(sets.values())).features
    names = {name: getattr(features[name], "names", None) for name in columns.more}

    def read(name: str) -> list[Any]:
        parts = [part.select_columns([name])[:][name] for part in sets.values()]
        return [value for values in parts for value in values]

    attributes = {
        name: [-1 if value is None else value for value in read(name)]
        for name in columns.more
    }
    more = {"attributes": attributes, "attribute_names": names}
    known = getattr(features.get(columns.label), "names", None)
    if known:  # A ClassLabel: classes without an image count, too.
        labels = [-1 if value is None else value for value in read(columns.label)]
        given = {"ids": ids, "labels": labels, "class_names": known, "splits": splits}
        return given | more
    values = read(columns.label) if columns.label else [None] * len(ids)
    classes, shown = make_classes(values, f"{where}, column {columns.label}")
    return make_meta(ids, classes, splits, shown) | more


def _open_reader(sets: dict[str, Any], image: str) -> Reader:
    import datasets

    parts = [
        part.select_columns([image]).cast_column(image, datasets.Image(decode=False))
        for part in sets.values()
    ]
    starts = np.cumsum([0, *(part.num_rows for part in parts)])
    return functools.partial(_read, parts, starts, image)


def _read(parts: list[Any], starts: np.ndarray, image: str, row: int) -> bytes:
    part = int(np.searchsorted(starts, row, "right")) - 1
    found = parts[part][int(row - starts[part])][image]
    if found is None:
        raise OSError("the set has no image there")
    if found["bytes"] is None:
        with open(found["path"], "rb") as file:
            return file.read()
    return found["bytes"]
