"""Images with boxes: stores of them, and the batches that a detector is trained on."""

import os

from eval.detection.data import scenes, tfds_voc, voc
from eval.detection.data.batches import Batches as Batches
from eval.detection.data.batches import make_dataset as make_dataset
from eval.detection.data.batches import test_batches as test_batches
from eval.detection.data.box_store import BoxStore as BoxStore
from sp_jax.errors import UserError

KNOWN = ("folder:VOCDEVKIT", "tfds:voc", "scenes")


def open_boxes(
    name: str, split: str, *, data_dir: str | os.PathLike[str] | None = None
) -> BoxStore:
    """Open a store of images with boxes.

    Args:
      name: one of
        "folder:VOCDEVKIT": a folder with VOC2007, VOC2012 or others in VOC's layout, or
          one of these;
        "tfds:voc": VOC of TensorFlow Datasets, or one year of it, "tfds:voc/2007";
        "scenes": composed of the shipped drawings, see `scenes`.
      split: such as VOC2007/trainval+VOC2012/trainval for a folder with several years,
        and 2007/trainval+2012/trainval for tfds:voc; trainval where there is one; train
        or test for scenes.
      data_dir: where prepared images are kept; default $SP_JAX_DATA, else
        ~/.cache/sp_jax.

    Raises:
      UserError: unknown name or split, missing or wrong files.
    """
    scheme, _, rest = name.partition(":")
    if scheme == "folder" and rest:
        return voc.open_folder(name, rest, split)
    if scheme == "tfds" and rest.partition("/")[0] == "voc":
        return tfds_voc.open_tfds(name, rest, split)
    if name == "scenes":
        return voc.open_folder(name, str(scenes.make_once(data_dir)), split)
    raise UserError(
        f"Unknown store of boxes {name!r}: the known ones are {', '.join(KNOWN)}."
    )
