"""Boxes are drawn where they are, labels where they hide least."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from PIL import Image

from eval.detection import draw_boxes
from eval.detection.average_precision import Detections
from eval.detection.draw_boxes import COLOURS, draw_detections, place_label
from eval.detection.figure import draw_precision
from eval.plots.figure import save_figure

NAMES = ("cat", "dog", "sheep")


def found(*rows):
    """Each row is box, score, class."""
    boxes, scores, classes = zip(*rows, strict=True) if rows else [[]] * 3
    return Detections(
        np.zeros(len(rows), np.int32),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(classes, np.int32),
    )


def there(*rows):
    """Each row is box, label."""
    return (
        np.array([box for box, _ in rows], np.float32).reshape(-1, 4),
        np.array([label for _, label in rows], np.int32),
    )


def grey(height, width):
    return np.full((height, width, 3), 128, np.uint8)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_boxes_are_drawn_where_they_are():
    box = (100, 50, 300, 150)
    one = found((box, 0.9, 1), ((20, 20, 60, 60), 0.4, 0))
    figure = draw_detections([grey(200, 400)], [one], [there()], NAMES, columns=1)
    figure.set_dpi(100)
    figure.canvas.draw()
    (axis,) = figure.axes
    left, bottom, width, height = axis.get_window_extent().bounds
    pixels = np.asarray(figure.canvas.buffer_rgba())[::-1, :, :3].astype(float)
    colour = 255 * COLOURS[0]
    y, x = np.nonzero(np.abs(pixels - colour).max(-1) < 3)
    # From the left and from the top, in pixels of the image.
    x = (x - left) * 400 / width
    y = (bottom + height - y) * 200 / height
    assert (x.min(), x.max()) == pytest.approx((100, 300), abs=1)
    right = x > 250  # of the label
    assert (y[right].min(), y[right].max()) == pytest.approx((50, 150), abs=1)
    assert [text.get_text() for text in axis.texts] == ["dog 0.90"]


def test_a_sheet_has_one_colour_a_class(tmp_path):
    """Of several images, without objects and detections, too; those seen most are first."""
    images = [grey(160, 160), grey(100, 200), grey(200, 100)]
    boxes = [(10, 10, 50, 50), (60, 60, 90, 90)]
    detections = [found((boxes[0], 0.7, 0), (boxes[1], 0.8, 2)), found(), found()]
    detections[2] = found((boxes[0], 0.5, 2), (boxes[1], 0.49, 1))
    truth = [there((boxes[0], 2), (boxes[1], 2)), there((boxes[0], 1)), there()]
    figure = draw_detections(images, detections, truth, NAMES)
    labels = {}
    for axis in figure.axes:
        for text in axis.texts:
            # Its background is the filled rectangle under it.
            (patch,) = [p for p in axis.patches if p.get_fill() and _contains(p, text)]
            labels[text.get_text()] = patch.get_facecolor()[:3]
    assert set(labels) == {"cat 0.70", "sheep 0.80", "sheep 0.50"}
    assert labels["sheep 0.80"] == labels["sheep 0.50"] == pytest.approx(COLOURS[0])
    assert labels["cat 0.70"] == pytest.approx(COLOURS[2])  # not an object anywhere
    white = [
        patch
        for axis in figure.axes
        for patch in axis.patches
        if patch.get_edgecolor()[:3] == to_rgb("white")
    ]
    assert len(white) == 3
    path = tmp_path / "sheet.png"
    save_figure(figure, path)
    with Image.open(path) as picture:
        assert picture.width > 1400


def _contains(patch, text):
    x, y = text.get_position()
    (x1, y1), w, h = patch.get_xy(), patch.get_width(), patch.get_height()
    return x1 <= x <= x1 + w and y1 <= y <= y1 + h


def test_mistakes():
    with pytest.raises(ValueError, match="no image"):
        draw_detections([], [], [], NAMES)
    with pytest.raises(ValueError):
        draw_detections([grey(9, 9)], [found()], [], NAMES)
    with pytest.raises(ValueError, match="no curve"):
        draw_precision({})


@given(st.lists(st.floats(0.3, 3), min_size=1, max_size=13), st.integers(1, 5))
def test_rows_fill_the_width_and_keep_the_aspect(aspects, columns):
    places, height = draw_boxes._justify(aspects, columns)
    x, y, w, h = np.array(places).T
    np.testing.assert_allclose(w / h, aspects)
    assert (x + w).max() <= draw_boxes.WIDTH + 1e-9
    assert (y + h).max() == pytest.approx(height)
    tallest = 1.2 * draw_boxes.WIDTH / columns
    for start in range(0, len(aspects), columns):
        row = slice(start, start + columns)
        assert len(set(y[row])) == 1 and np.ptp(h[row]) < 1e-9
        right = (x + w)[row].max()
        assert h[start] == pytest.approx(tallest) or right == pytest.approx(12)


@given(st.integers(0, 2**32 - 1))
def test_labels_stay_in_the_image_and_off_the_box_where_they_can(seed):
    rng = np.random.default_rng(seed)
    image, size = rng.uniform(60, 200, 2), rng.uniform(5, 20, 2)
    corner = rng.uniform(0, 0.7, 2) * image
    box = np.append(corner, corner + rng.uniform(0.05, 0.3, 2) * image)
    nothing = np.zeros((0, 4))
    x, y = place_label(size, box, tuple(image), box[None], nothing)
    assert x >= 0 and y >= 0
    assert np.all(np.array([x, y]) + size <= image + 1e-9)
    # 20 pixels are free above the box or below it.
    label = np.array([[x, y, x + size[0], y + size[1]]])
    assert draw_boxes._overlap(label, box[None])[0, 0] < 1e-9


def test_places_of_labels():
    size, image, nothing = np.array([20, 10]), (100, 100), np.zeros((0, 4))

    def place(box, others=(), labels=nothing):
        boxes = np.array([box, *others], float)
        return place_label(size, np.array(box, float), image, boxes, labels)

    assert place((30, 30, 70, 70)) == (30, 20)
    # Its place is taken by a label, or by another box.
    assert place((30, 30, 70, 70), labels=np.array([[30, 20, 50, 30]])) == (50, 20)
    assert place((30, 30, 70, 70), [(20, 5, 80, 29)]) == (30, 70)
    assert place((30, 0, 70, 70)) == (30, 70)
    # No room around a box that is as high as the image, but beside it; at last inside.
    assert place((30, 0, 70, 100)) == (70, 0)
    assert place((0, 0, 100, 100)) == (0, 0)


def test_curves_are_means_with_the_range_of_the_seeds():
    recall = np.linspace(0, 1, 101)
    seeds = [{"cat": a * (1 - recall), "dog": a * np.ones(101)} for a in (0.4, 0.8)]
    curves = {"SP": seeds, "random": [dict.fromkeys(seeds[0], np.zeros(101))]}
    figure = draw_precision(curves, by_class=True)
    axes = [axis for axis in figure.axes if axis.get_title()]
    assert [a.get_title() for a in axes] == ["mean over classes", "cat", "dog"]
    line = axes[0].get_lines()[0]
    np.testing.assert_allclose(line.get_xdata(), recall)
    np.testing.assert_allclose(line.get_ydata(), 0.6 * (1 - recall / 2))
    heights = axes[2].collections[0].get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(0.4) and heights.max() == pytest.approx(0.8)
    texts = [text.get_text() for text in axes[1].get_legend().get_texts()]
    assert texts == ["0.300", "0.000"]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["SP", "random"]


def test_names_are_drawn_as_they_are(tmp_path):
    names = ("$5 and $10", "$a_b^{$", "caf\udce9")
    box = (10, 10, 90, 90)
    seen = [found((box, 0.9, i)) for i in range(3)]
    path = tmp_path / "sheet.png"
    truth = [there((box, i)) for i in range(3)]
    save_figure(draw_detections([grey(160, 160)] * 3, seen, truth, names), path)
    curve = dict.fromkeys(names, np.linspace(1, 0, 101))
    runs = {"runs/$a^{$": [curve], "_run": [curve]}
    figure = draw_precision(runs, by_class=True)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == list(runs)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["mean over classes", *names[:2], "caf?"]
    save_figure(draw_precision(runs, by_class=True), path)


def test_the_mean_alone(tmp_path):
    path = tmp_path / "pr.png"
    save_figure(draw_precision({"SP": [{"cat": np.linspace(1, 0, 101)}]}), path)
    with Image.open(path) as picture:
        assert np.asarray(picture.convert("L")).std() > 5
