"""The pictures of the page."""

import io
import shutil

import numpy as np
from PIL import Image

from input_pipeline.curation.pictures import original_pictures
from input_pipeline.stores import open_source, open_store, records


def test_the_original_pictures(folder):
    path, store, _ = folder
    shutil.make_archive(path / "packed", "zip", path / "pictures")
    packed = open_store(f"folder:{path / 'packed.zip'}", data_dir=path / "data")
    records.write(open_source(store.name), path / "records", 64, "crop", 0, 4)
    recorded = open_store(f"array_record:{path / 'records'}")
    assert packed.ids == recorded.ids == store.ids

    def picture(store, row, *side):
        content = original_pictures(store)(row, *side)
        return np.asarray(Image.open(io.BytesIO(content)))

    for row in (0, 9):  # The first one is CMYK.
        with Image.open(path / "pictures" / store.ids[row]) as file:
            original = np.asarray(file.convert("RGB"))
        assert np.array_equal(picture(store, row), original)
        assert np.array_equal(picture(packed, row), original)
        assert np.array_equal(picture(recorded, row), store.read(row))
        assert picture(store, row, 150).shape == (150, 120, 3)
