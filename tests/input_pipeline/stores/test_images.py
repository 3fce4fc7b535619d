"""Images without labels: everything below a folder, and lists of paths."""

import re
import sys

import pytest
from PIL import Image

from input_pipeline.pairs import pairing
from input_pipeline.stores import image_files, open_store
from sp_jax.errors import UserError
from sp_jax.extras import install

NAMES = ("holiday.JPG", "2024/05/beach.png", "2024/sea.avif", "train/cat/a.webp")


@pytest.fixture
def photographs(tmp_path):
    """Images beside folders and at several depths, as people keep them."""
    root = tmp_path / "photographs"
    for number, name in enumerate(NAMES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (50 * number, 90, 90)).save(root / name)
    (root / "2024/film.mov").write_bytes(b"no image")
    return root


def opened(path, tmp_path, split=None, **more):
    options = {"image_size": 8, "data_dir": tmp_path / "data"} | more
    return open_store(f"images:{path}", split, **options)


def test_every_image_at_any_depth(photographs, tmp_path, caplog):
    store = opened(photographs, tmp_path)
    assert store.ids == tuple(sorted(NAMES)) and store.splits == ()
    assert set(store.labels.tolist()) == {-1} and store.class_names == ()
    reds = dict(zip(store.ids, store.read(range(4))[:, 4, 4, 0].tolist(), strict=True))
    assert all(abs(reds[name] - 50 * i) < 4 for i, name in enumerate(NAMES))
    assert "1 files of other kinds (1 .mov), such as 2024/film.mov" in caplog.text
    assert len(opened(photographs, tmp_path, "all:holdout=0.25")) == 1
    assert len(pairing.own_pairs(store)) == 4
    with pytest.raises(UserError, match="no semantic pairs: .*pairing=augmented"):
        pairing.semantic_pairs(store, seed=0)


def test_list_of_paths(photographs, tmp_path):
    other = tmp_path / "other.png"
    Image.new("RGB", (9, 9)).save(other)
    lines = [str(other), "photographs/2024/sea.avif", "", "photographs/holiday.JPG"]
    path = tmp_path / "list.txt"
    path.write_text("\r\n".join([*lines, lines[1]]), encoding="utf-8-sig")
    store = opened(path, tmp_path)
    assert store.ids == (lines[0], lines[1], lines[3])  # in its order, each once
    assert abs(int(store.read([1])[0, 4, 4, 0]) - 100) < 4
    path.write_text("photographs/nowhere.png\n")
    with pytest.raises(UserError, match=r"list.txt lists photographs/nowhere.png, wh"):
        opened(path, tmp_path)
    path.write_text("\n")
    with pytest.raises(UserError, match="is empty: write the path of an image on each"):
        opened(path, tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(
        UserError, match="no folder .*nowhere: create it and put images"
    ):
        opened(tmp_path / "nowhere", tmp_path)
    (tmp_path / "some.mov").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"holds no images .*1 .mov.*at any depth"):
        opened(tmp_path, tmp_path)


@pytest.fixture
def heic(photographs):
    """A phone's image, of a red and of a blue half."""
    pillow_heif = pytest.importorskip("pillow_heif")
    image = Image.new("RGB", (64, 64), (255, 0, 0))
    image.paste((0, 0, 255), (0, 32, 64, 64))
    path = photographs / "2024/IMG_0001.HEIC"
    pillow_heif.from_pillow(image).save(path)
    return path


def test_heic_of_a_phone(heic, photographs, tmp_path):
    store = opened(photographs, tmp_path)
    pixels = store.read(store.ids.index("2024/IMG_0001.HEIC"))
    assert pixels[1, 4, 0] > 240 and pixels[6, 4, 2] > 240
    assert len(store) == 5


def test_heic_without_its_library(photographs, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(image_files, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    image_files.can_read_heic.cache_clear()
    content = b"\0\0\0\x1cftypheic" + bytes(40)
    (photographs / "2024/IMG_0001.HEIC").write_bytes(content)
    said = "1 HEIC images, such as 2024/IMG_0001.HEIC: to read them, "
    said += re.escape(install("heic"))
    with pytest.raises(UserError, match=said):
        opened(photographs, tmp_path)
    (tmp_path / "list.txt").write_text("photographs/2024/IMG_0001.HEIC")
    with pytest.raises(UserError, match=said.replace("such as ", "such as .*")):
        opened(tmp_path / "list.txt", tmp_path)
    # Beside others in class folders it is passed over, with a warning.
    store = open_store(f"folder:{photographs / '2024'}/05", data_dir=tmp_path / "data")
    assert len(store) == 1
    (photographs / "2024/05/a.heic").write_bytes(content)
    open_store(f"folder:{photographs / '2024'}/05", data_dir=tmp_path / "data")
    assert f"(to read HEIC: {install('heic')})" in caplog.text
    # Under another suffix it is known by its content.
    (photographs / "2024/05/a.heic").rename(photographs / "2024/05/b.jpg")
    with pytest.raises(UserError, match=r"b.jpg \(it is HEIC: pip install"):
        open_store(f"folder:{photographs / '2024'}/05", data_dir=tmp_path / "data")
    image_files.can_read_heic.cache_clear()


def test_heic_whose_library_comes_later(heic, photographs, tmp_path, monkeypatch):
    heic.rename(photographs / "2024/IMG_0001.jpg")  # It is known by its content.
    with monkeypatch.context() as without:
        without.setattr(image_files, "find_spec", lambda name: None)
        without.setitem(sys.modules, "pillow_heif", None)
        image_files.can_read_heic.cache_clear()
        assert len(opened(photographs, tmp_path, max_skipped=0.5)) == 4
    image_files.can_read_heic.cache_clear()
    assert len(opened(photographs, tmp_path)) == 5
