"""Stores of images with boxes, opened by name. Images keep their own sizes."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from input_pipeline.stores.decode import BadImage, open_rgb
from sp_jax.errors import UserError


class Annotation(NamedTuple):
    """The objects in an image."""

    id: str  # names the image in messages
    size: tuple[int, int]  # its height and width
    names: list[str]  # class of each object
    boxes: np.ndarray  # float32 [n, 4], x1, y1, x2, y2 in pixels; x2 - x1 wide
    difficult: np.ndarray  # bool [n]


@dataclasses.dataclass(frozen=True, eq=False)
class BoxStore:
    """N images with boxes."""

    name: str  # as given to `open_boxes`, like the split
    split: str
    class_names: tuple[str, ...]
    ids: tuple[str, ...]
    sizes: np.ndarray  # int32 [N, 2], height and width
    # Of each image float32 [n, 4]: x1, y1, x2, y2 in its pixels, x2 > x1.
    boxes: Sequence[np.ndarray]
    labels: Sequence[np.ndarray]  # of each image int32 [n], from 0
    # Of each image bool [n]: hard to see, so trained on, but they need not be found.
    difficult: Sequence[np.ndarray]
    # Row to the encoded image. Several threads may call it; it raises OSError.
    encoded: Callable[[int], bytes]

    def __len__(self) -> int:
        """The number of images."""
        return len(self.ids)

    @functools.cached_property
    def upright(self) -> np.ndarray:
        """Which images are taller than wide, bool [N]."""
        return self.sizes[:, 0] > self.sizes[:, 1]

    def read(self, row: int) -> np.ndarray:
        """Decode an image: uint8 [h, w, 3], without EXIF rotation, as its boxes have none.

        Raises:
          UserError: it is missing or damaged, or has another size than its annotation says.
        """
        image_name = f"{self.name}: image {self.ids[row]}"
        try:
            image = open_rgb(self.encoded(row), upright=False)
        except (OSError, BadImage) as error:
            raise UserError(
                f"{image_name} cannot be used ({error}): restore it, or remove it from "
                "the split."
            ) from error
        check_size(image_name, image.size, tuple(self.sizes[row]))
        return np.asarray(image)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 hex over ids, sizes, boxes and classes; not over the pixels."""
        whole = hashlib.sha256("\0".join((*self.class_names, "", *self.ids)).encode())
        whole.update(np.asarray(self.sizes, "<i4").tobytes())
        fields = (self.boxes, "<f4"), (self.labels, "<i4"), (self.difficult, "u1")
        for parts, dtype in fields:
            for part in parts:
                whole.update(len(part).to_bytes(4, "little"))
                whole.update(np.ascontiguousarray(part, dtype).tobytes())
        return whole.hexdigest()


def check_size(image: str, size: tuple[int, int], annotated: tuple[int, int]) -> None:
    """Raise UserError unless an image has the size that its annotation says."""
    if size != annotated[::-1]:
        raise UserError(
            f"{image} is {size[0]} x {size[1]} pixels, but its annotation says "
            f"{annotated[1]} x {annotated[0]}: its boxes would be wrong, so correct one of "
            "them."
        )


def make_store(
    name: str,
    split: str,
    class_names: Sequence[str],
    annotations: Sequence[Annotation],
    encoded: Callable[[int], bytes],
) -> BoxStore:
    """Join annotations; UserError if there are none, or a box is empty or outside."""
    if not annotations:
        raise UserError(f"{name} has no images in {split}.")
    number = {class_name: i for i, class_name in enumerate(class_names)}
    ids, sizes, names, _, difficult = zip(*annotations, strict=True)
    return BoxStore(
        name,
        split,
        tuple(class_names),
        ids,
        np.array(sizes, np.int32),
        [_inside(name, one) for one in annotations],
        [np.array([number[n] for n in own], np.int32) for own in names],
        difficult,
        encoded,
    )


def _inside(name: str, annotation: Annotation) -> np.ndarray:
    """The boxes, clipped to the image, as rounded fractions may exceed it."""
    (height, width), boxes = annotation.size, annotation.boxes
    if (boxes <= -1).any() or (boxes[:, 2:] >= (width + 1, height + 1)).any():
        raise UserError(
            f"{name}: image {annotation.id} of {width} x {height} pixels has a box "
            "that reaches out of it (VOC counts pixels from 1): correct its annotation."
        )
    boxes = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
    if (boxes[:, 2:] <= boxes[:, :2]).any():
        raise UserError(
            f"{name}: image {annotation.id} has an empty box: correct its annotation."
        )
    return boxes
