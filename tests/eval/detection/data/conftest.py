"""Stores of boxes in the memory, and folders in VOC's layout."""

import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from eval.detection.data import BoxStore


def _jpeg(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=100, subsampling=0)
    return file.getvalue()


def _make_boxes(sizes, boxes):
    """A store of black images, whose boxes are white."""
    files = []
    for (height, width), some in zip(sizes, boxes, strict=True):
        image = np.zeros((height, width, 3), np.uint8)
        for x1, y1, x2, y2 in some:
            image[y1:y2, x1:x2] = 255
        files.append(_jpeg(image))
    return BoxStore(
        name="memory",
        split="all",
        class_names=("thing",),
        ids=tuple(str(row) for row in range(len(sizes))),
        sizes=np.asarray(sizes, np.int32).reshape(-1, 2),
        boxes=[np.asarray(some, np.float32).reshape(-1, 4) for some in boxes],
        labels=[np.zeros(len(some), np.int32) for some in boxes],
        difficult=[np.zeros(len(some), bool) for some in boxes],
        encoded=files.__getitem__,
    )


def _object(name="cat", corners=(2, 3, 8, 9), difficult="<difficult>0</difficult>"):
    keys = ("xmin", "ymin", "xmax", "ymax")
    box = "".join(f"<{k}>{x}</{k}>" for k, x in zip(keys, corners, strict=True))
    return (
        f"<object><name>{name}</name>{difficult}<bndbox>{box}</bndbox>"
        # VOC names the parts of people; they are no objects.
        "<part><name>head</name><bndbox><xmin>0</xmin></bndbox></part></object>"
    )


def _annotation(*objects, size=(10, 20)):
    height, width = size
    text = f"<size><width>{width}</width><height>{height}</height></size>"
    return f"<annotation>{text}{''.join(objects)}</annotation>"


class Folder:
    """Writes a VOCdevkit of images of 20 x 10 pixels."""

    def __init__(self, root: pathlib.Path):
        self.root = root
        self.object, self.annotation = _object, _annotation

    def add(self, split, id, *objects, size=(10, 20), year="VOC2007"):
        top = self.root / year
        for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (top / folder).mkdir(parents=True, exist_ok=True)
        image = np.full((*size, 3), 90, np.uint8)
        (top / "JPEGImages" / f"{id}.jpg").write_bytes(_jpeg(image))
        text = self.annotation(*objects, size=size)
        (top / "Annotations" / f"{id}.xml").write_text(text)
        with open(top / "ImageSets" / "Main" / f"{split}.txt", "a") as file:
            file.write(f"{id}\n")


@pytest.fixture(scope="session")
def make_boxes():
    """A function: sizes (height, width) and lists of boxes to a store."""
    return _make_boxes


@pytest.fixture
def voc(tmp_path):
    """A VOCdevkit to fill."""
    return Folder(tmp_path / "VOCdevkit")
