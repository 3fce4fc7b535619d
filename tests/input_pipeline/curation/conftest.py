"""A folder of pictures with a table of pairs."""

import numpy as np
import pytest
from PIL import Image

from input_pipeline import pairs
from input_pipeline.pairs import pairing
from input_pipeline.stores import open_store


@pytest.fixture
def folder(tmp_path):
    """Larger images than what is stored, one of them CMYK, and a table of pairs."""
    rng = np.random.default_rng(0)
    for c in ("cat", "dog <b>"):
        (tmp_path / "pictures" / c).mkdir(parents=True)
        for i in range(5):
            small = rng.integers(0, 256, (5, 4, 3), np.uint8)
            image = Image.fromarray(small).resize((240, 300), Image.BICUBIC)
            if i == 0:
                image = image.convert("CMYK")
            image.save(tmp_path / "pictures" / c / f"ä {i}.jpg")
    store = open_store(f"folder:{tmp_path / 'pictures'}", data_dir=tmp_path / "data")
    table = pairing.class_pairs(store, 2, seed=0)
    pairs.save_table(tmp_path / "pairs.csv", table, store)
    return tmp_path, store, table
