"""Real images for the tests of the augmentation."""

import io
import pathlib
import zipfile

import numpy as np
import pytest
from PIL import Image

ARCHIVE = (
    pathlib.Path(__file__).resolve().parents[2]
    / "input_pipeline"
    / "emoji"
    / "emoji_core5.zip"
)


@pytest.fixture(scope="session")
def emoji_sheet():
    """One artist's drawings as one picture on a colour wash: uint8 [1664, 4096, 3]."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        sheet = Image.open(io.BytesIO(archive.read("noto.webp"))).convert("RGBA")
    sheet = np.asarray(sheet, np.float32)
    y, x = np.mgrid[0 : sheet.shape[0], 0 : sheet.shape[1]]
    wash = np.stack([x // 3 % 256, y // 2 % 256, (x + y) // 5 % 256], axis=-1)
    alpha = sheet[..., 3:] / 255
    return np.round(alpha * sheet[..., :3] + (1 - alpha) * wash).astype(np.uint8)


@pytest.fixture(scope="session")
def emoji_images(emoji_sheet):
    """Uint8 [48, 64, 64, 3]: single drawings from all over the sheet."""
    tiles = emoji_sheet.reshape(26, 64, 64, 64, 3).swapaxes(1, 2).reshape(-1, 64, 64, 3)
    return tiles[:1632:34]


@pytest.fixture(scope="session")
def scenes(emoji_sheet):
    """Uint8 [12, 96, 160, 3]: larger pictures that are not square."""
    strips = emoji_sheet[:1152].reshape(12, 96, 4096, 3)
    return strips[:, :, 320:480]
