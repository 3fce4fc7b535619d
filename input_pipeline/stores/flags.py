"""The flags that name a store, for the programs of this package."""

from absl import flags

from input_pipeline.stores.decode import RESIZES
from input_pipeline.stores.image_store import ImageStore, open_store

STORE = flags.DEFINE_string(
    "store", None, "Image store, such as folder:DIR or images:DIR.", required=True
)
SPLIT = flags.DEFINE_string("split", "all", "Split of the store.")
IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", 64, "Side of the stored images in pixels.", 1
)
RESIZE = flags.DEFINE_enum(
    "resize", "crop", RESIZES, "Crop the centre, or squash the whole image."
)
MAX_SKIPPED = flags.DEFINE_float(
    "max_skipped", 0.01, "Largest share of the images that may be left out.", 0, 1
)
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared images; default $SP_JAX_DATA, else ~/.cache."
)


def open_from_flags(name: str | None = None, verify: bool = False) -> ImageStore:
    """Open the store of the flags, or another store with the same options."""
    return open_store(
        name or STORE.value,
        SPLIT.value,
        image_size=IMAGE_SIZE.value,
        resize=RESIZE.value,
        data_dir=DATA_DIR.value,
        max_skipped=MAX_SKIPPED.value,
        verify=verify,
    )
