"""Marks for a person: copies, and images of another class."""

import numpy as np
import pytest
from PIL import Image

from input_pipeline.curation import marks
from input_pipeline.stores import open_store


@pytest.fixture(scope="module")
def drawings(emoji_dir):
    return open_store("emoji", "pretrain", data_dir=emoji_dir)


class Two:
    """A store of two images."""

    def __init__(self, *images):
        self._images = np.stack(images)

    def read(self, rows):
        return self._images[rows]


def test_copies_of_one_source(drawings):
    """Mirrored, darkened, mostly also cropped: found. Other drawings: seldom."""

    def found(first, second):
        return marks.same_source(Two(first, second), 0, 1) > marks.SAME_SOURCE

    cropped = []
    for image in drawings.read(np.arange(0, 3500, 350)):
        assert all(found(image, copy) for copy in (image, image[:, ::-1], image // 2))
        part = Image.fromarray(image[6:60, 3:57]).resize((64, 64), Image.BICUBIC)
        part = np.asarray(part)[:, ::-1]
        cropped.append(found(image, part))
        assert found(part, image) == cropped[-1]
    assert np.mean(cropped) >= 0.8
    rows = np.arange(0, 3500, 100)
    others = map(found, drawings.read(rows), drawings.read(rows + 37))
    assert np.mean(list(others)) < 0.1
    blank = np.full((64, 64, 3), 7, np.uint8)
    assert marks.same_source(Two(blank, blank), 0, 1) == 0


def test_images_under_a_wrong_class_are_suspected():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 100)
    labels[:50] = -1
    features = rng.normal(size=(500, 8)) * 0.3 + 2 * np.eye(5, 8)[np.maximum(labels, 0)]
    given = labels.copy()
    wrong = rng.choice(np.arange(50, 500), 6, replace=False)
    given[wrong] = (labels[wrong] + 2) % 5
    found = marks.suspects(features.astype(np.float32), given)
    assert np.flatnonzero(found >= 0).tolist() == sorted(wrong)
    assert np.array_equal(found[wrong], labels[wrong])
    assert (marks.suspects(features, labels) == -1).all()  # Nothing to doubt.
