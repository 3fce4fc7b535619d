"""Small image stores whose pixels are the features."""

import numpy as np
import pytest

from eval import task
from input_pipeline.stores import ImageStore
from input_pipeline.stores.prepared_images import digest_pixels
from sp_jax.errors import UserError


def pixels(images):
    """The features_fn of these tests: uint8 [n, S, S, 3] -> float32 [n, 3 S S]."""
    return images.reshape(len(images), -1).astype(np.float32)


@pytest.fixture
def make_store():
    """Function (values uint8 [N, 12] or [N, S, S, 3], labels, split, attributes) -> store."""

    def make(values, labels, split="train", **attributes):
        images = np.asarray(values, np.uint8)
        if images.ndim == 2:
            images = images.reshape(-1, 2, 2, 3)
        labels = np.asarray(labels, np.int32)
        ids = tuple(f"{split}/{row}" for row in range(len(images)))
        return ImageStore(
            name="tiny",
            split=split,
            images=images,
            labels=labels,
            class_names=tuple(f"class{c}" for c in range(max(labels) + 1)),
            ids=ids,
            attributes={k: np.asarray(v, np.int32) for k, v in attributes.items()},
            attribute_names={
                k: tuple(f"{k}{c}" for c in range(max(v) + 1))
                for k, v in attributes.items()
            },
            digests=np.stack([digest_pixels(image) for image in images]),
        )

    return make


@pytest.fixture
def provide(monkeypatch):
    """Function (*stores): `open_store` finds these, by split, and nothing else."""

    def install(*stores):
        known = {store.split: store for store in stores}

        def open_store(name, split, *, image_size, **_):
            if split not in known:
                raise UserError(f"{name} has no split {split!r}.")
            return known[split]

        monkeypatch.setattr(task, "open_store", open_store)

    return install


@pytest.fixture
def blobs(make_store):
    """Function (split, seed) -> store of 3 noisy classes, 60 images."""

    def make(split, seed, **attributes):
        rng = np.random.default_rng(seed)
        labels = np.arange(60) % 3
        values = 80 + 80 * np.eye(12)[labels * 4] + 30 * rng.standard_normal((60, 12))
        return make_store(np.clip(values, 0, 255), labels, split, **attributes)

    return make


@pytest.fixture(name="pixels")
def pixels_fixture():
    """See the function of this name."""
    return pixels
