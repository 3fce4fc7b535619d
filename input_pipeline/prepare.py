"""Decode and resize the images of a store once, before the first run.

    python -m input_pipeline.prepare --store=folder:/data/imagenet/train
    python -m input_pipeline.prepare --store=tfds:imagenet2012 --out=/data/imagenet64

Training does the same by itself where a store is new. Prepared beforehand, many runs can
share it, and with --out the images come into ArrayRecord files, for sets of millions:
--config.data.store=array_record:/data/imagenet64 reads them. A preparation that was killed
goes on with the same command.
"""

import pathlib

from absl import flags

from input_pipeline import cli, decode, records
from input_pipeline.store import open_source, open_store

_STORE = flags.DEFINE_string(
    "store", None, "Image store, such as folder:DIR or tfds:cifar10.", required=True
)
_SIZE = flags.DEFINE_integer(
    "image_size", 64, "Side of the stored images in pixels.", lower_bound=1
)
_RESIZE = flags.DEFINE_enum(
    "resize", "crop", decode.RESIZES, "Crop the centre, or squash the whole image."
)
_MAX_SKIPPED = flags.DEFINE_float(
    "max_skipped", 0.01, "Share of the images that may be damaged and left out."
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared images; default $SP_JAX_DATA, else ~/.cache."
)
_OUT = flags.DEFINE_string("out", None, "Folder for ArrayRecord files, instead.")
_SHARD_IMAGES = flags.DEFINE_integer(
    "shard_images", 16384, "Images a file of --out.", lower_bound=1
)


def prepare() -> None:
    """Prepare the images, and say what there is."""
    name = _STORE.value
    if _OUT.value:
        records.write(
            open_source(name),
            _OUT.value,
            _SIZE.value,
            _RESIZE.value,
            _MAX_SKIPPED.value,
            _SHARD_IMAGES.value,
        )
        name = f"array_record:{pathlib.Path(_OUT.value).expanduser().absolute()}"
    store = open_store(
        name,
        image_size=_SIZE.value,
        resize=_RESIZE.value,
        data_dir=_DATA_DIR.value,
        max_skipped=_MAX_SKIPPED.value,
    )
    classes = len(store.class_names)
    print(f"{name}: {len(store)} images of {_SIZE.value} px, {classes} classes")


if __name__ == "__main__":
    cli.run(prepare)
