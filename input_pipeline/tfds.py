"""Sets of TensorFlow Datasets (https://www.tensorflow.org/datasets), read without it.

`tfds:NAME` such as tfds:cifar10, tfds:stl10, tfds:imagenet2012 or tfds:voc/2007: any set
with a feature "image", prepared in the ArrayRecord format under $TFDS_DATA_DIR (else
~/tensorflow_datasets). Preparing needs TensorFlow, once, on any machine; the error says how.

Splits are those of the set. Labels are its feature "label"; without one, images are
unlabelled. Further class labels, such as CIFAR-100's "coarse_label", are attributes. Ids are
"SPLIT/NAME" where the set names its images, else "SPLIT/NUMBER".
"""

import os
import pathlib
from collections.abc import Iterator
from typing import Any

from input_pipeline.source import Reader, Source
from sp_jax.errors import UserError

# Features that name an image.
_NAMES = ("file_name", "image/filename", "id")
_ROWS = 1024  # Examples that are read at a time.


def scan(name: str) -> Source:
    """The images of a prepared set.

    Raises:
      UserError: see `open_builder`.
    """
    builder = open_builder(name)
    splits = builder.info.splits
    counts = [(split, splits[split].num_examples) for split in sorted(splits)]
    sizes = [splits[split].num_bytes for split in sorted(splits)]
    return Source(
        name=f"tfds-{name.replace('/', '-').replace(':', '-')}",
        key=f"{builder.info.full_name} {counts} {sizes}",
        meta=lambda: _meta(builder, counts),
        open_reader=lambda: _open_reader(builder, counts),
    )


def open_builder(name: str) -> Any:
    """A prepared set: its tfds.core.DatasetBuilder.

    Raises:
      UserError: the set is unknown, not prepared, or has no images.
    """
    import tensorflow_datasets as tfds  # Takes a second.

    unknown = tfds.core.registered.DatasetNotFoundError
    try:
        plain, _ = tfds.core.naming.parse_builder_name_kwargs(name)
        if plain.namespace:  # It would be looked for in the network.
            raise ValueError(f"{plain.namespace}: is a collection of others")
        builder = tfds.builder(name, data_dir=os.environ.get("TFDS_DATA_DIR"))
    # A version that is not there is an AssertionError, an unknown option a TypeError.
    except (unknown, ValueError, AssertionError, TypeError) as error:
        raise UserError(
            f"TensorFlow Datasets has no set {name!r} ({str(error).splitlines()[0]}): "
            "choose one of https://www.tensorflow.org/datasets/catalog."
        ) from error
    if not builder.is_prepared():
        raise UserError(_how_to_prepare(name, builder))
    if builder.info.file_format.value != "array_record":
        raise UserError(
            f"tfds:{name} is prepared as {builder.info.file_format.value}, which only "
            f"TensorFlow reads: {_command(name)}"
        )
    if "image" not in builder.info.features:
        raise UserError(
            f"tfds:{name} has no feature 'image' but "
            f"{', '.join(builder.info.features)}: choose another set."
        )
    return builder


def read_examples(examples: Any) -> Iterator[dict[str, Any]]:
    """All examples that `encoded` gives, in order."""
    for start in range(0, len(examples), _ROWS):
        yield from examples.__getitems__(
            range(start, min(start + _ROWS, len(examples)))
        )


def encoded(builder: Any, split: str) -> Any:
    """The examples of a split, images as bytes; the set's other features decoded."""
    import tensorflow_datasets as tfds

    return builder.as_data_source(
        split=split, decoders={"image": tfds.decode.SkipDecoding()}
    )


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
    """A feature of text."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _open_reader(builder: Any, counts: list[tuple[str, int]]) -> Reader:
    rows = [
        (examples, row)
        for split, count in counts
        for examples in [encoded(builder, split)]
        for row in range(count)
    ]

    def read(row: int) -> bytes:
        examples, place = rows[row]
        return examples[place]["image"]

    return read


def _command(name: str) -> str:
    return (
        "on a machine with TensorFlow (pip install tensorflow-cpu), run: tfds build "
        f"{name} --file_format=array_record"
    )


def _how_to_prepare(name: str, builder: Any) -> str:
    """Which files to put where, and what to run."""
    root = pathlib.Path(builder.data_dir)
    while root.name and root.name != builder.name:
        root = root.parent
    root = root.parent
    manual = root / "downloads" / "manual"
    needed = (builder.MANUAL_DOWNLOAD_INSTRUCTIONS or "").strip()
    if needed:
        needed = f"put the files into {manual} ({' '.join(needed.split())}); then, "
    else:
        urls = " and ".join(builder.url_infos)
        if urls:
            needed = f"without a network, put {urls} into {manual}; then, "
    return (
        f"tfds:{name} is not prepared in {root} (or $TFDS_DATA_DIR): {needed}"
        f"{_command(name)} --data_dir={root}"
    )
