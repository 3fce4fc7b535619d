"""Datasets of TensorFlow Datasets (https://www.tensorflow.org/datasets), without TensorFlow.

`tfds:NAME` such as tfds:cifar10, tfds:stl10, tfds:imagenet2012 or tfds:voc/2007: any set
with a feature "image", prepared in the ArrayRecord format under $TFDS_DATA_DIR (else
~/tensorflow_datasets). `python -m input_pipeline.prepare --store=tfds:NAME` does that; it
needs TensorFlow, once, on any machine.

Splits are those of the set. Labels are its feature "label"; without one, images are
unlabelled. Further class labels, such as CIFAR-100's "coarse_label", are attributes. Ids are
"SPLIT/NAME" where the set names its images, else "SPLIT/NUMBER".
"""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from input_pipeline.stores.image_source import Reader, Source
from sp_jax import extras
from sp_jax.errors import UserError

_NAMES = ("file_name", "image/filename", "id")  # Features that name an image.
_ROWS = 1024  # Examples that are read at a time.


def scan(name: str) -> Source:
    """The images of a prepared set; errors are those of `open_builder`."""
    builder = open_builder(name)
    splits = sorted(builder.info.splits.items())
    counts = [(name, split.num_examples) for name, split in splits]
    sizes = [split.num_bytes for _, split in splits]
    return Source(
        name=f"tfds-{name.replace('/', '-').replace(':', '-')}",
        key=f"{builder.info.full_name} {counts} {sizes}",
        meta=lambda: _meta(builder, counts),
        open_reader=lambda: _open_reader(builder, counts),
    )


def open_builder(name: str) -> Any:
    """A prepared set: its tfds.core.DatasetBuilder.

    UserError if the set is unknown, not prepared, or has no images.
    """
    builder = find_builder(name)
    if not builder.is_prepared() or not is_readable(builder):
        raise UserError(
            f"{what_is_missing(name, builder)}; then run: python -m "
            f"input_pipeline.prepare --store=tfds:{name}"
        )
    if "image" not in builder.info.features:
        raise UserError(
            f"tfds:{name} has no feature 'image' but "
            f"{', '.join(builder.info.features)}: choose another set."
        )
    return builder


def find_builder(name: str) -> Any:
    """A set, prepared or not: its tfds.core.DatasetBuilder; UserError if it is unknown."""
    extras.require("tfds", f"tfds:{name}")
    import tensorflow_datasets as tfds  # Takes a second.

    unknown = tfds.core.registered.DatasetNotFoundError
    try:
        plain, _ = tfds.core.naming.parse_builder_name_kwargs(name)
        if plain.namespace:  # It would be looked for in the network.
            raise ValueError(f"{plain.namespace}: is a collection of datasets")
        return tfds.builder(name, data_dir=os.environ.get("TFDS_DATA_DIR"))
    except Exception as error:  # Reading its files raises many types.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        # A missing version is an AssertionError, an unknown option a TypeError.
        known = isinstance(error, unknown | ValueError | AssertionError | TypeError)
        if known and "DatasetInfo" not in reason:
            raise UserError(
                f"TensorFlow Datasets has no dataset {name!r} ({reason}): "
                "choose one of https://www.tensorflow.org/datasets/catalog."
            ) from error
        raise UserError(
            f"dataset_info.json of tfds:{name}, in $TFDS_DATA_DIR (else "
            f"~/tensorflow_datasets), is damaged ({reason}): remove its folder, and "
            "prepare the set again."
        ) from error


def is_readable(builder: Any) -> bool:
    """Whether a prepared set can be read without TensorFlow; if so, choose that format."""
    from tensorflow_datasets.core import dataset_info

    info, wanted = builder.info, "array_record"
    if info.file_format.value != wanted:
        # A builder does not read which other formats are there.
        noted = dataset_info.read_proto_from_builder_dir(builder.data_path)
        if wanted not in noted.alternative_file_formats:
            return False
        info.set_file_format(wanted, override=True, override_if_initialized=True)
    return True


def read_examples(examples: Any) -> Iterator[dict[str, Any]]:
    """All examples of `encoded`, in order; UserError if the files are damaged."""
    for start in range(0, len(examples), _ROWS):
        rows = range(start, min(start + _ROWS, len(examples)))
        with _reading(examples):
            part = examples.__getitems__(rows)
        yield from part


@contextlib.contextmanager
def _reading(examples: Any) -> Iterator[None]:
    """Turn an error while reading into a UserError that names the folder."""
    try:
        yield
    except (RuntimeError, ValueError, IndexError) as error:
        folder = examples.dataset_info.data_dir
        raise UserError(
            f"The files in {folder} are damaged ({str(error).splitlines()[0]}): remove "
            "that folder, and prepare the set again."
        ) from error


def encoded(builder: Any, split: str) -> Any:
    """The examples of a split, images as bytes; the set's other features decoded."""
    import tensorflow_datasets as tfds

    decoders = {"image": tfds.decode.SkipDecoding()}
    return builder.as_data_source(split=split, decoders=decoders)


def _meta(builder: Any, counts: list[tuple[str, int]]) -> dict[str, Any]:
    import tensorflow_datasets as tfds

    features = builder.info.features
    key = next((name for name in _NAMES if name in features), None)
    known = [k for k, f in features.items() if isinstance(f, tfds.features.ClassLabel)]
    ids, splits, values = [], {}, {k: [] for k in known}
    for split, count in counts:
        splits[split] = list(range(len(ids), len(ids) + count))
        for row, example in enumerate(read_examples(encoded(builder, split))):
            name = text(example[key]) if key else f"{row:07d}"
            ids.append(f"{split}/{name}")
            for k in known:
                values[k].append(int(example[k]))
    names = {k: list(features[k].names) for k in known}
    return {
        "ids": ids,
        "labels": values.pop("label", [-1] * len(ids)),
        "class_names": names.pop("label", []),
        "attributes": values,
        "attribute_names": names,
        "splits": splits,
    }


def text(value: Any) -> str:
    """A text feature as str."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _open_reader(builder: Any, counts: list[tuple[str, int]]) -> Reader:
    rows = []
    for split, count in counts:
        examples = encoded(builder, split)
        rows += [(examples, row) for row in range(count)]

    def read(row: int) -> bytes:
        examples, place = rows[row]
        with _reading(examples):
            return examples[place]["image"]

    return read


def root_of(builder: Any) -> pathlib.Path:
    """The folder of all sets."""
    root = pathlib.Path(builder.data_dir)
    while root.name and root.name != builder.name:
        root = root.parent
    return root.parent


def what_is_missing(name: str, builder: Any) -> str:
    """Why a set cannot be read, and what is needed to prepare it, as half a sentence."""
    tensorflow = (
        "pip install tensorflow-cpu (once, on any machine; reading does not need it)"
    )
    if builder.is_prepared():
        return (
            f"tfds:{name} is prepared as {builder.info.file_format.value}, which only "
            f"TensorFlow can read: to convert it, {tensorflow}"
        )
    files = files_of(builder)
    return (
        f"tfds:{name} is not prepared in {root_of(builder)} (or $TFDS_DATA_DIR): "
        f"{files + '; ' if files else ''}{tensorflow}"
    )


def files_of(builder: Any) -> str:
    """Which files to put where, in words; "" for a set without files."""
    manual = root_of(builder) / "downloads" / "manual"
    needed = (builder.MANUAL_DOWNLOAD_INSTRUCTIONS or "").strip()
    if needed:
        return f"put the files into {manual} ({' '.join(needed.split()).rstrip('.')})"
    urls = " and ".join(builder.url_infos)
    return f"without a network, put {urls} into {manual}" if urls else ""
