"""Composed scenes: exact boxes, disjoint drawings, the same for a seed, complete or absent."""

import hashlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from eval.detection.data import open_boxes, scenes
from eval.detection.data.backgrounds import Draws, background
from input_pipeline.stores import emoji
from sp_jax.errors import UserError


@pytest.fixture(scope="module")
def composer():
    return scenes.Composer()


def test_boxes_hold_what_is_seen(composer, monkeypatch):
    """Each object is painted in one colour; so pixels tell where it is."""

    def black(draws, height, width):
        return np.zeros((height, width, 3), np.uint8)

    def draw(draws, rows):
        name, drawing = original(draws, rows)
        colours.append(len(colours) + 1)
        solid = np.where(drawing[..., 3:] >= 128, [*[colours[-1]] * 3, 255], 0)
        return name, solid.astype(np.uint8)

    original = composer._draw
    monkeypatch.setattr(scenes, "background", black)
    monkeypatch.setattr(composer, "_draw", draw)
    occluded = truncated = left_out = 0
    for number in range(60):
        colours = []
        scene = composer.scene("train", 0, number)
        shown = [c for c in colours if (scene.image == c).any()]
        left_out += len(colours) - len(shown)
        assert len(shown) == len(scene.names) == len(scene.boxes)
        for colour, box, outside, seen in zip(shown, *scene[2:], strict=True):
            y, x = np.nonzero(scene.image[..., 0] == colour)
            assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
            assert 0.15 <= seen <= 1 - outside + 1e-9
            occluded += seen < 0.5
            truncated += outside > 0.1
    assert occluded > 5 and truncated > 5 and left_out < 5


def test_drawings_of_train_and_test_are_disjoint(composer):
    meta = emoji.scan().meta()
    group = np.asarray(meta["attributes"]["group"])
    groups = {
        split: set(group[np.concatenate(list(rows.values()))])
        for split, rows in composer.rows.items()
    }
    seen = set(group[meta["splits"]["pretrain"]])
    assert not groups["train"] & groups["test"]
    assert not (groups["train"] | groups["test"]) & seen
    for rows in composer.rows.values():
        assert len(rows) == 7 and min(len(x) for x in rows.values()) > 80


def test_a_scene_is_a_function_of_split_seed_and_number(composer):
    images = [composer.scene("train", 0, number).image for number in range(12)]
    again = scenes.Composer().scene("train", 0, 1).image
    np.testing.assert_array_equal(again, images[1])
    others = [composer.scene(*key).image for key in [("test", 0, 1), ("train", 1, 1)]]
    assert len({image.tobytes() for image in [*images, *others]}) == 14
    assert {image.shape for image in images} == {(150, 200, 3), (200, 150, 3)}
    # Numbers that were published rest on it.
    scene = composer.scene("test", 0, 0)
    assert scene.names == ["travel", "objects", "objects", "animals"]
    wanted = [
        [43, 61, 143, 150],
        [72, 33, 99, 60],
        [89, 62, 146, 147],
        [85, 2, 156, 68],
    ]
    assert np.abs(scene.boxes - wanted).max() <= 1  # Pillow may round otherwise.


def test_draws():
    draws = Draws(3, 1)
    # Of NumPy's promise: the same bits in every version.
    assert [Draws(3, 1).integer(2**31) for _ in range(2)] == [draws.integer(2**31)] * 2
    numbers = [draws.uniform(2, 5) for _ in range(500)]
    assert 2 <= min(numbers) < 2.1 and 4.9 < max(numbers) < 5
    assert set(draws.integer(3) for _ in range(100)) == {0, 1, 2}
    bytes = draws.bytes((5, 1000))
    assert bytes.shape == (5, 1000) and len(np.unique(bytes)) == 256


def test_backgrounds_differ():
    images = np.stack([background(Draws(n), 30, 40) for n in range(40)])
    assert images.shape == (40, 30, 40, 3) and images.dtype == np.uint8
    means = images.mean((1, 2))
    assert (means.std(0) > 30).all()
    assert images.std((1, 2)).mean() > 15


def _digest(folder):
    """Of the names and contents of all files."""
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return whole.hexdigest()


def test_the_store_is_made_once(composer, tmp_path, monkeypatch):
    monkeypatch.setattr(scenes, "TRAIN", 6)
    monkeypatch.setattr(scenes, "TEST", 4)
    train = open_boxes("scenes", "train", data_dir=tmp_path)
    assert train.class_names == tuple(sorted(scenes.CLASSES)) and len(train) == 6
    composed = composer.scene("train", scenes.SEED, 0)
    assert train.boxes[0].tolist() == composed.boxes.tolist()
    assert [train.class_names[i] for i in train.labels[0]] == composed.names
    assert train.difficult[0].tolist() == (composed.seen < 0.3).tolist()
    # A JPEG of high quality: close to what was composed.
    difference = train.read(0).astype(float) - composed.image
    assert np.abs(difference).mean() < 8
    (folder,) = tmp_path.glob("scenes-*")
    before = _digest(folder), folder.stat().st_mtime_ns
    assert len(open_boxes("scenes", "test", data_dir=tmp_path)) == 4
    assert (_digest(folder), folder.stat().st_mtime_ns) == before
    monkeypatch.setattr(scenes, "TRAIN", 5)  # Another number: another folder.
    assert len(open_boxes("scenes", "train", data_dir=tmp_path)) == 5
    assert len(list(tmp_path.glob("scenes-*"))) == 2


def _make(out, *flags):
    command = [sys.executable, "-m", "eval.detection.make_scenes", f"--out={out}"]
    return subprocess.Popen(
        [*command, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_killed_program_leaves_no_half_folder(tmp_path):
    out, small = tmp_path / "out", ["--train=8", "--test=4", "--seed=7"]
    killed = _make(out, "--train=100000")
    partial = pathlib.Path(f"{out}.partial")
    deadline = time.monotonic() + 60
    while len(list(partial.rglob("*.xml"))) < 20:
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert partial.exists() and not out.exists()
    printed, errors = _make(out, *small).communicate()
    assert "8 scenes for training and 4 for test" in printed, errors
    assert os.listdir(tmp_path) == ["out"]
    scenes.write(tmp_path / "again", 8, 4, 7)
    assert _digest(out) == _digest(tmp_path / "again")
    assert len(open_boxes(f"folder:{out}", "test")) == 4


def test_mistakes(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("text")
    for out, numbers, message in [
        ("out", (1, 1, 0), "exists already: choose a new or an empty folder"),
        ("new", (0, 1, 0), "at least one scene"),
        ("new", (1, 1, -1), "seed must be at least 0"),
    ]:
        with pytest.raises(UserError, match=message):
            scenes.write(tmp_path / out, *numbers)
    assert (tmp_path / "out" / "thesis.tex").read_text() == "text"
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write the scenes to .*data_dir"):
        open_boxes("scenes", "train", data_dir=tmp_path / "file")
