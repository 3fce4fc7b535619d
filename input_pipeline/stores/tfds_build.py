"""Prepare a set of TensorFlow Datasets in the ArrayRecord format; needs TensorFlow, once."""

import importlib.util
import os
import pathlib
import shutil
from typing import Any

from input_pipeline.stores import tfds
from sp_jax import progress
from sp_jax.errors import UserError


def build(name: str) -> None:
    """Download and prepare a set, or convert one that only TensorFlow can read.

    Existing files stay unchanged; a set in the right form costs nothing.

    Raises:
      UserError: the set is unknown, TensorFlow is missing, or the builder fails.
    """
    builder = tfds.find_builder(name)
    if builder.is_prepared() and tfds.is_readable(builder):
        return
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(f"{tfds.what_is_missing(name, builder)}.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # It prints much of no use here.
    root = tfds.root_of(builder)
    try:
        if builder.is_prepared():
            print(f"tfds:{name}: converting the files in {builder.data_path}")
            _convert(builder)
        else:
            print(f"tfds:{name}: downloading and preparing in {root}")
            builder.download_and_prepare(
                file_format="array_record", download_dir=root / "downloads"
            )
    except Exception as error:  # Builders raise many types.
        reason = (
            (str(error) or type(error).__name__).strip().splitlines()[0].rstrip(":")
        )
        files = tfds.files_of(builder)
        raise UserError(
            f"tfds:{name} cannot be prepared in {root} ({reason})"
            f"{': ' + files if files else ''}."
        ) from error


def _convert(builder: Any) -> None:
    """Write the examples as ArrayRecord, too, beside the existing files."""
    from tensorflow_datasets.core import dataset_info, file_adapters

    info, folder = builder.info, pathlib.Path(builder.data_path)
    new = file_adapters.FileFormat.ARRAY_RECORD
    old = file_adapters.ADAPTER_FOR_FORMAT[info.file_format]
    write = file_adapters.ADAPTER_FOR_FORMAT[new].write_examples
    proto = info.as_proto
    splits = dataset_info.get_split_dict_from_proto(proto, folder, new)
    temporary = folder / "incomplete.array_record"
    temporary.mkdir(exist_ok=True)
    for split, described in splits.items():
        pairs = zip(info.splits[split].filepaths, described.filepaths, strict=True)
        for source, target in progress.track(
            list(pairs), f"converting {split}", "files"
        ):
            examples = enumerate(old.make_tf_data(os.fspath(source)))
            part = temporary / target.name
            write(part, ((i, example.numpy()) for i, example in examples))
            os.replace(part, target)
    # The set declares this format only now.
    proto.alternative_file_formats.append(new.value)
    dataset_info.write_dataset_info_proto(proto, temporary)
    os.replace(temporary / "dataset_info.json", folder / "dataset_info.json")
    shutil.rmtree(temporary)
