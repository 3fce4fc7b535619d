"""The host takes each view's crop from whole JPEG files, and decodes each image once.

This is the one exception to the rule that all augmentation is on the accelerator: whole images
of many sizes do not form an array, and have more bytes than their crops. Which image a view
shows and the distribution of its box are those of `sp_jax.augment`, and all operations after
the crop are on the device, as always. The random numbers are a function of (seed, step), like
all of a stream.
"""

import dataclasses
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from input_pipeline.pairs import sampling
from input_pipeline.stores.prepared_images import Pixels
from sp_jax.crops import TRIES, Crop, fit_crops, sources
from sp_jax.errors import UserError

_FILTERS = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}
_WORDS = 2 * TRIES + 2  # random numbers of a box


@dataclasses.dataclass(frozen=True)
class HostCrops:
    """Takes the crops of a batch of pairs; worker processes get it.

    Attributes:
      images: of a coded store.
      crops: one for each view.
      seed: of the run.
    """

    images: Pixels
    crops: Sequence[Crop]
    seed: int

    def read(
        self, step: int, batch: dict[str, np.ndarray], mine: slice
    ) -> dict[str, np.ndarray | tuple[np.ndarray, ...]]:
        """Some rows of a step's batch, in the form of `Sampler.batch`, with their crops.

        Returns:
          "crops": for each size s of the views, in the order in which the sizes come first,
          uint8 [b, n, s, s, 3], the n views of this size; "index" int32 [b, views], the image
          that each view shows; "label" int32 [b].

        Raises:
          UserError: a file cannot be decoded.
        """
        whole, per_pair = batch["index"].shape
        views = len(self.crops)
        bits = sampling.random_bits(self.seed, sampling.SWAP, step, whole, np)
        source = sources(bits[mine] >> 31 == 1, views, per_pair, np)
        index = np.take_along_axis(batch["index"][mine], source, axis=1)
        words = whole * views * _WORDS
        words = sampling.random_bits(self.seed, sampling.CROP, step, words, np)
        words = words.reshape(whole, views, _WORDS)[mine]

        rows, shown = np.unique(index, return_inverse=True)
        shown = shown.reshape(index.shape)
        files = [_open(file) for file in self.images.stored(rows)]
        width, height = np.array([file.size for file in files]).T[:, shown]
        sides = [crop.size for crop in self.crops]
        crops = {
            side: np.empty((len(index), sides.count(side), side, side, 3), np.uint8)
            for side in sides
        }
        # By image and not by view, so that one is in the memory at a time.
        wanted: list[list[tuple]] = [[] for _ in files]
        for view, crop in enumerate(self.crops):
            place = sides[:view].count(crop.size)
            of_view = words[:, view], height[:, view], width[:, view]
            boxes = draw_boxes(*of_view, crop.scale, crop.ratio)
            for row, box in enumerate(boxes.tolist()):
                out = crops[crop.size][row, place]
                wanted[shown[row, view]].append((out, box, crop))
        for number, parts in enumerate(wanted):
            try:
                files[number].load()
            except (OSError, SyntaxError, ValueError) as error:
                raise _damaged(error) from error
            for out, box, crop in parts:
                out[...] = cut(files[number], box, crop)
            files[number].close()
        return {
            "crops": tuple(crops.values()),
            "index": index,
            "label": batch["label"][mine],
        }


def draw_boxes(
    words: np.ndarray,
    height: np.ndarray,
    width: np.ndarray,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> np.ndarray:
    """Random boxes with the distribution of `sp_jax.augment.params.sample_boxes`.

    Args:
      words: random bits, uint32 [n, 22].
      height: of each image in pixels [n].
      width: likewise.
      scale: range of the area, as a share of the image's.
      ratio: range of width / height.

    Returns:
      Top, left, height, width of each, int32 [n, 4].
    """
    unit = words[:, : 2 * TRIES] / 2.0**32
    area = scale[0] + (scale[1] - scale[0]) * unit[:, :TRIES]
    low, high = np.log(ratio)
    aspect = np.exp(low + (high - low) * unit[:, TRIES:])
    area = area * (height * width)[:, None]
    h, w, found = fit_crops(area, aspect, height, width, ratio, np)
    free = np.stack([height - h, width - w], axis=1)
    place = (
        words[:, 2 * TRIES :].astype(np.uint64) * (free + 1).astype(np.uint64)
    ) >> 32
    place = np.where(found[:, None], place.astype(np.int64), free // 2)
    return np.concatenate([place, np.stack([h, w], axis=1)], axis=1).astype(np.int32)


def cut(image: Image.Image, box: Sequence[int], crop: Crop) -> np.ndarray:
    """One crop of an image by its box, antialiased: uint8 [size, size, 3]."""
    top, left, height, width = box
    # Cut first: PIL's own `box` would let pixels beside the crop weigh in.
    part = image.crop((left, top, left + width, top + height))
    size = (crop.size, crop.size)
    return np.asarray(part.resize(size, _FILTERS[crop.interpolation]))


def _open(file: np.ndarray) -> Image.Image:
    """A JPEG file of a coded store, not decoded yet."""
    try:
        return Image.open(io.BytesIO(file), formats=("JPEG",))
    except OSError as error:
        raise _damaged(error) from error


def _damaged(error: Exception) -> UserError:
    return UserError(
        f"A JPEG file of the prepared images cannot be decoded ({error}): prepare the images "
        "again."
    )
