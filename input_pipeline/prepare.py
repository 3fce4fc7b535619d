"""Decode and resize the images of a store once, before the first run.

    python -m input_pipeline.prepare --store=folder:/data/imagenet/train
    python -m input_pipeline.prepare --store=tfds:imagenet2012 --out=/data/imagenet64
    python -m input_pipeline.prepare --store=imagenet:/data/imagenet --out=/data/coded --coded

Training does the same by itself if a store is new. Images prepared in advance can be shared by
many runs. With --out they are written to ArrayRecord files, for sets of millions;
--config.data.store=array_record:/data/imagenet64 reads them. With --coded they stay whole JPEG
files, from which a training's workers take each view's random crop: for views of 224 pixels. A
preparation that was killed continues with the same command. A set of TensorFlow Datasets is
first downloaded, prepared or converted, if TensorFlow is installed.
"""

import os

from absl import flags

from input_pipeline.stores import flags as given
from input_pipeline.stores import open_source, records, tfds_build
from input_pipeline.stores.image_store import with_split
from sp_jax import cli
from sp_jax.errors import UserError

flags.adopt_module_key_flags(given)  # --help lists them
_OUT = flags.DEFINE_string(
    "out", None, "Folder for ArrayRecord files, instead of --data_dir."
)
_SHARD_IMAGES = flags.DEFINE_integer(
    "shard_images", 16384, "With --out: images per file.", 1
)
_CODED = flags.DEFINE_bool(
    "coded", False, "With --out: store whole JPEG files, not the pixels of a crop."
)
_SHORTER_SIDE = flags.DEFINE_integer(
    "shorter_side", 256, "With --coded: shorter side of larger images, in pixels.", 1
)
_QUALITY = flags.DEFINE_integer(
    "quality", 90, "With --coded: quality of the JPEG files.", 1, 100
)
_VERIFY = flags.DEFINE_bool(
    "verify", False, "Compare all prepared pixels with their SHA-256."
)


def prepare() -> None:
    """Prepare the images, and print what was prepared."""
    name = given.STORE.value
    if _CODED.value and not _OUT.value:
        raise UserError(
            "--coded writes ArrayRecord files: give their folder, --out=DIR."
        )
    needs = (_SHARD_IMAGES, _OUT), (_SHORTER_SIDE, _CODED), (_QUALITY, _CODED)
    for flag, needed in needs:
        if flag.present and not needed.value:
            raise UserError(f"--{flag.name} has no effect without --{needed.name}.")
    if _CODED.value and given.RESIZE.value != "crop":
        raise UserError(
            "--coded keeps whole images, which programs crop to their centre: leave "
            "--resize out, or prepare pixels, without --coded."
        )
    if name.startswith("tfds:"):
        tfds_build.build(name.removeprefix("tfds:"))
    if _OUT.value:
        records.write(
            with_split(open_source(name), name, given.SPLIT.value),
            _OUT.value,
            given.IMAGE_SIZE.value,
            given.RESIZE.value,
            given.MAX_SKIPPED.value,
            _SHARD_IMAGES.value,
            records.Coding(_SHORTER_SIDE.value, _QUALITY.value)
            if _CODED.value
            else None,
        )
        name = f"array_record:{os.path.abspath(os.path.expanduser(_OUT.value))}"
    store = given.open_from_flags(name, _VERIFY.value)
    form = "JPEG files" if store.coded else f"images of {given.IMAGE_SIZE.value} px"
    print(
        f"{name}, split {store.split}: {len(store)} {form}, "
        f"{len(store.class_names)} classes"
    )


if __name__ == "__main__":
    cli.run(prepare)
