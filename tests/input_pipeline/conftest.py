"""Small stores for the tests of the input pipeline."""

import numpy as np
import pytest

from input_pipeline import stores
from input_pipeline.stores import prepared_images


def _make_store(labels, size: int = 4, name: str = "tiny") -> stores.ImageStore:
    labels = np.asarray(labels, np.int32)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (len(labels), size, size, 3), np.uint8)
    ids = tuple(f"class{label}/{row}.png" for row, label in enumerate(labels))
    return stores.ImageStore(
        name=name,
        split="all",
        images=images,
        labels=labels,
        class_names=tuple(f"class{i}" for i in range(labels.max() + 1)),
        ids=ids,
        attributes={},
        attribute_names={},
        digests=np.stack([prepared_images.digest_pixels(image) for image in images]),
    )


@pytest.fixture(scope="session")
def make_store():
    """A function that makes a store of random images with the given labels."""
    return _make_store


@pytest.fixture(scope="session")
def emoji_dir(tmp_path_factory):
    """One prepared folder of the embedded set for all tests."""
    return tmp_path_factory.mktemp("prepared")
