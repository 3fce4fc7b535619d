"""Batches of images with boxes, for training and for testing.

An image is resized into the top left corner of an array; the rest is 0. Arrays have a few
sizes, because each is a program of its own on the device.
"""

import concurrent.futures
import dataclasses
import functools
import os
import sys
from collections.abc import Iterator, Sequence

import grain
import numpy as np
from PIL import Image

from eval.detection.data.box_store import BoxStore
from input_pipeline.pairs.sampling import check_seed, random_bits
from input_pipeline.pairs.stream import share_of
from sp_jax.errors import UserError

Batch = dict[str, np.ndarray]
Size = tuple[int, int]  # height and width

# Keep the uses of a seed apart, also from those of `sampling`.
_ORDER, _BATCHES, _SIZE, _FLIP = 10, 11, 12, 13
_THREADS = min(16, os.cpu_count() or 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """The batches of a training; the batch of a step is a function of (seed, step).

    The images of a batch are all upright or all not, as Detectron2 groups them. An epoch
    shuffles both groups, cuts them into batches (what is left is dropped), and shuffles
    these. Images without an object are left out. A wrong value raises UserError.
    """

    store: BoxStore
    batch_size: int  # images B of the global batch, over all processes
    seed: int  # at least 0 and below 2^32
    # Of the arrays for images that are not upright, turned for those that are; one is drawn
    # for each batch.
    sizes: Sequence[Size]
    max_boxes: int  # M of an image; of more the largest are kept
    flip: bool = True  # mirror each image with probability 1/2

    def __post_init__(self) -> None:
        """Check the values."""
        if self.batch_size < 1 or self.max_boxes < 1:
            raise UserError(
                "batch_size and max_boxes must be at least 1, not "
                f"{self.batch_size} and {self.max_boxes}."
            )
        check_seed(self.seed)
        if not self.sizes or min(min(size) for size in self.sizes) < 1:
            raise UserError(f"sizes must be heights and widths, not {self.sizes}.")
        if not self.steps_per_epoch:
            landscape, upright = map(len, self._groups)
            raise UserError(
                f"batch_size {self.batch_size} exceeds the images with objects of "
                f"{self.store.name} {self.store.split}: {landscape} landscape, "
                f"{upright} upright, and a batch has either."
            )

    @functools.cached_property
    def _groups(self) -> list[np.ndarray]:
        """Rows of the images that are not upright, and of those that are."""
        has_object = np.array([len(boxes) > 0 for boxes in self.store.boxes])
        upright = self.store.upright
        return [np.flatnonzero(x & has_object) for x in (~upright, upright)]

    @property
    def steps_per_epoch(self) -> int:
        """Batches of both groups."""
        return sum(len(rows) // self.batch_size for rows in self._groups)

    # Two epochs: prefetching runs ahead over the border.
    @functools.lru_cache(maxsize=2)  # noqa: B019 one a run
    def _order(self, epoch: int) -> np.ndarray:
        """Rows of an epoch: [steps_per_epoch, B]."""
        size, parts = self.batch_size, []
        for use, rows in enumerate(self._groups):
            # The two groups are drawn from different numbers.
            bits = random_bits(self.seed, _ORDER, 2 * epoch + use, len(rows), np)
            whole = rows[np.argsort(bits, kind="stable")][: len(rows) // size * size]
            parts.append(whole.reshape(-1, size))
        batches = np.concatenate(parts)
        bits = random_bits(self.seed, _BATCHES, epoch, len(batches), np)
        return batches[np.argsort(bits, kind="stable")]

    def rows(self, step: int) -> np.ndarray:
        """Rows of the store that the batch of a step >= 0 shows: integers [B]."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return self._order(epoch)[place]

    def batch(self, step: int, part: slice = slice(None)) -> Batch:
        """The batch of any step >= 0; `part` chooses b of its B images.

        Returns:
          "image" uint8 [b, H, W, 3]; "size" int32 [b, 2], height and width of the image in
          it; "boxes" float32 [b, M, 4] in its pixels, 0 where there is none; "label" int32
          [b, M], -1 where there is none; "index" int32 [b], rows of the store.
        """
        rows = self.rows(step)
        (bits,) = random_bits(self.seed, _SIZE, step, 1, np)
        size = self.sizes[int(bits) % len(self.sizes)]
        if self.store.upright[rows[0]]:
            size = size[::-1]
        flips = random_bits(self.seed, _FLIP, step, self.batch_size, np) >> 31 == 1
        rows, flips = rows[part], (flips & self.flip)[part]
        batch = _load(self.store, rows, size, flips)
        boxes = np.zeros((len(rows), self.max_boxes, 4), np.float32)
        label = np.full((len(rows), self.max_boxes), -1, np.int32)
        for i, (row, flip) in enumerate(zip(rows, flips, strict=True)):
            own, labels = self.store.boxes[row], self.store.labels[row]
            if len(own) > self.max_boxes:
                area = (own[:, 2:] - own[:, :2]).prod(axis=1)
                largest = np.sort(np.argsort(-area, kind="stable")[: self.max_boxes])
                own, labels = own[largest], labels[largest]
            # In float64, and rounded once.
            factor = batch["size"][i] / self.store.sizes[row]
            own = own * factor[[1, 0, 1, 0]]
            if flip:
                own[:, [0, 2]] = batch["size"][i, 1] - own[:, [2, 0]]
            boxes[i, : len(own)], label[i, : len(own)] = own, labels
        return batch | {"boxes": boxes, "label": label}


def _load(store: BoxStore, rows: np.ndarray, size: Size, flips: np.ndarray) -> Batch:
    """Read images; a row of -1 gives an empty one of one pixel."""
    images = np.zeros((len(rows), *size, 3), np.uint8)
    sizes = np.ones((len(rows), 2), np.int32)

    def one(i: int) -> None:
        if rows[i] < 0:
            return
        pixels = store.read(rows[i])
        # Bilinear and antialiased, by the most that fits.
        factor = min(np.divide(size, pixels.shape[:2]))
        h, w = sizes[i] = [max(1, round(factor * n)) for n in pixels.shape[:2]]
        pixels = np.asarray(Image.fromarray(pixels).resize((w, h), Image.BILINEAR))
        images[i, :h, :w] = pixels[:, ::-1] if flips[i] else pixels

    # PIL lets go of the interpreter while it decodes and resizes.
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(one, range(len(rows))))
    return {"image": images, "size": sizes, "index": np.asarray(rows, np.int32)}


def make_dataset(
    batches: Batches, process_index: int = 0, process_count: int = 1
) -> grain.MapDataset:
    """A stream of batches like that of `stream.make_dataset`, with the same errors."""
    mine = share_of(batches.batch_size, process_index, process_count)
    return grain.MapDataset.range(sys.maxsize).map(
        lambda step: batches.batch(int(step), mine)
    )


def test_batches(store: BoxStore, batch_size: int, size: Size) -> Iterator[Batch]:
    """All images once, upright ones last: "image", "size", "index" as in `Batches`.

    A batch has one shape, `size` (height and width), turned for upright images. The last one
    is filled up with index -1.
    """
    for upright in (False, True):
        rows = np.flatnonzero(store.upright == upright)
        rows = np.pad(rows, (0, -len(rows) % batch_size), constant_values=-1)
        for own in rows.reshape(-1, batch_size):
            shape = size[::-1] if upright else size
            yield _load(store, own, shape, np.zeros(batch_size, bool))
