"""Average precision: answers known by hand, and two other ways to the same numbers."""

import contextlib
import io
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from eval.detection.average_precision import IOUS, Detections, average_precision
from sp_jax.errors import UserError

FAR = (500, 500, 510, 510)
NAMES = ["ap", "ap50", "ap75", "voc07_ap", "voc07_ap50", "voc07_ap75", "voc_ap50"]


def place(i):
    """The i-th of boxes that do not overlap; 20 x 10 pixels."""
    return (40 * i, 0, 40 * i + 20, 10)


def make_store(*images, classes=2):
    """Each image is a list of (box, label) or (box, label, difficult)."""
    full = [[(*x, False)[:3] for x in image] for image in images]
    return SimpleNamespace(
        class_names=tuple(f"class{c}" for c in range(classes)),
        boxes=[np.array([x[0] for x in i], np.float32).reshape(-1, 4) for i in full],
        labels=[np.array([x[1] for x in i], np.int32) for i in full],
        difficult=[np.array([x[2] for x in i], bool) for i in full],
    )


def make_found(*rows):
    """Each row is image, box, score, class."""
    image, boxes, scores, classes = zip(*rows, strict=True) if rows else [[]] * 4
    return Detections(
        np.array(image, np.int32),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(classes, np.int32),
    )


def values(store, *rows):
    return average_precision(store, make_found(*rows)).values


def test_perfect_and_none():
    store = make_store([(place(0), 0), (place(1), 1)], [(place(2), 0)], [])
    perfect = [(0, place(0), 0.9, 0), (0, place(1), 0.2, 1), (1, place(2), 0.8, 0)]
    assert values(store, *perfect) == pytest.approx(dict.fromkeys(NAMES, 1))
    assert values(store) == dict.fromkeys(NAMES, 0)
    wrong = [(i, box, score, 1 - c) for i, box, score, c in perfect]
    assert values(store, *wrong) == dict.fromkeys(NAMES, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        (0, FAR),  # beside the object
        (0, place(0)),  # the object once more
        (1, place(0)),  # in an image without objects
    ],
)
def test_a_false_positive_matters_only_above(wrong):
    store = make_store([(place(0), 0)], [])
    right = (0, place(0), 0.5, 0)
    below = values(store, right, (*wrong, 0.4, 0))
    assert below == pytest.approx(dict.fromkeys(NAMES, 1))
    above = values(store, right, (*wrong, 0.6, 0))
    double = wrong == (0, place(0))  # then it is the sure one that is right
    assert above == pytest.approx(dict.fromkeys(NAMES, 1 if double else 0.5))


def test_iou_thresholds():
    """12.4 of the object's 20 columns: an IoU of 0.62."""
    store = make_store([(place(0), 0)])
    got = values(store, (0, (0, 0, 12.4, 10), 0.9, 0))
    expected = {"ap": 0.3, "ap50": 1, "ap75": 0}  # 0.5, 0.55 and 0.6 of ten
    expected |= {f"voc07_{name}": x for name, x in expected.items()} | {"voc_ap50": 1}
    assert got == pytest.approx(expected)


def test_classes_are_averaged_and_absent_ones_left_out():
    store = make_store(
        [(place(0), 0), (place(1), 2), (place(2), 3, True)], [(place(0), 0)], classes=5
    )
    # Half of class 0, nothing of class 2; 3 is only difficult, 4 is nowhere.
    found = make_found(
        (1, place(0), 0.5, 0), (0, place(2), 0.9, 3), (0, place(2), 0.9, 4)
    )
    scores = average_precision(store, found)
    assert scores.left_out == ("class1", "class3", "class4")
    assert scores.ap50_by_class == pytest.approx({"class0": 51 / 101, "class2": 0})
    assert scores.values["ap50"] == pytest.approx(51 / 202)
    assert scores.values["voc07_ap50"] == pytest.approx(6 / 22)
    assert scores.values["voc_ap50"] == pytest.approx(1 / 4)
    for name, curve in scores.curves.items():
        assert curve.shape == (101,)
        assert curve.mean() == pytest.approx(scores.ap50_by_class[name])


def test_three_areas_under_a_curve():
    """Right, wrong, right, right, wrong, of 4 objects: by hand.

    Precision 1, 1/2, 2/3, 3/4, 3/5 at recall 1/4, 1/4, 1/2, 3/4, 3/4; so at best 1 until
    a recall of 1/4, 3/4 until 3/4, then 0.
    """
    store = make_store([(place(i), 0) for i in range(4)])
    boxes = [place(0), FAR, place(1), place(2), FAR]
    got = values(store, *((0, box, 0.9 - 0.1 * i, 0) for i, box in enumerate(boxes)))
    assert got["voc_ap50"] == pytest.approx(1 / 4 * 1 + 1 / 2 * 3 / 4)
    assert got["voc07_ap50"] == pytest.approx((3 * 1 + 5 * 3 / 4) / 11)
    assert got["ap50"] == pytest.approx((26 * 1 + 50 * 3 / 4) / 101)


def test_eleven_points_are_exact():
    """3 of 10 have a recall of 0.3, though 3 * 0.1 is more than 0.3 in floats."""
    store = make_store([(place(i), 0) for i in range(10)])
    got = values(store, *((0, place(i), 0.5, 0) for i in range(3)))
    assert got["voc07_ap50"] == pytest.approx(4 / 11)


def test_difficult_objects_are_ignored():
    store = make_store([(place(0), 0), (place(1), 0, True)])
    right, forgiven = (0, place(0), 0.5, 0), (0, place(1), 0.9, 0)
    # Missed or found, it changes nothing.
    assert values(store, right) == pytest.approx(dict.fromkeys(NAMES, 1))
    assert values(store, right, forgiven) == pytest.approx(dict.fromkeys(NAMES, 1))
    twice = values(store, right, forgiven, (0, place(1), 0.8, 0))
    for name, value in twice.items():
        assert value == pytest.approx(1 if name.startswith("voc") else 0.5)
    # It is no crowd, in which a small part would be forgiven, too.
    x1, y1, _, y2 = place(1)
    part = (0, (x1, y1, x1 + 6, y2), 0.9, 0)
    assert values(store, right, part) == pytest.approx(dict.fromkeys(NAMES, 0.5))


def test_only_coco_gives_a_detection_the_next_best_object():
    store = make_store([((0, 0, 20, 10), 0), ((5, 0, 25, 10), 0)])
    got = values(store, (0, (0, 0, 20, 10), 0.9, 0), (0, (1, 0, 21, 10), 0.8, 0))
    assert got["ap50"] == pytest.approx(1)
    assert got["voc_ap50"] == pytest.approx(1 / 2)
    assert got["voc07_ap50"] == pytest.approx(6 / 11)


def test_mistakes():
    store = make_store([(place(0), 0)])
    with pytest.raises(ValueError, match="image -1; there are 1"):
        values(store, (-1, place(0), 0.5, 0))
    with pytest.raises(ValueError, match="class 2; there are 2"):
        values(store, (0, place(0), 0.5, 2))
    with pytest.raises(UserError, match="has diverged"):
        values(store, (0, place(0), np.nan, 0))
    with pytest.raises(UserError, match="No image has an object"):
        values(make_store([(place(0), 0, True)], []), (0, place(0), 0.5, 0))


def make_random(seed, difficult):
    """Crowded images, detections near objects and elsewhere, some of wrong classes."""
    rng = np.random.default_rng(seed)

    def draw(n):
        corner = rng.uniform(0, 30, (n, 2))
        return np.concatenate([corner, corner + rng.uniform(8, 25, (n, 2))], axis=1)

    images, rows = [], []
    for row in range(4):
        boxes, labels = draw(rng.integers(0, 6)), rng.integers(0, 3, 6)
        hard = rng.random(6) < difficult
        images.append(list(zip(boxes, labels, hard, strict=False)))
        for box, label in list(zip(boxes, labels, strict=False)) * 2:
            near = box + rng.normal(0, 1.5, 4)
            rows.append((row, near, rng.random(), label))
        rows += [(row, box, rng.random(), rng.integers(0, 3)) for box in draw(4)]
    images.append([(box, label) for label, box in enumerate(draw(3))])
    return make_store(*images, classes=3), make_found(*rows)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_voc_is_as_a_loop_over_detections_has_it(seed):
    store, found = make_random(seed, difficult=0.3)
    results = []
    for threshold in IOUS:
        results.append([loop_voc(store, found, c, threshold) for c in range(3)])
    points, area = np.array(results).transpose(2, 0, 1)
    scores = average_precision(store, found)
    assert scores.values["voc07_ap"] == pytest.approx(points.mean())
    assert scores.values["voc07_ap75"] == pytest.approx(points[5].mean())
    assert scores.values["voc_ap50"] == pytest.approx(area[0].mean())
    mixed = np.random.default_rng(seed).permutation(len(found.scores))
    again = average_precision(store, Detections(*(x[mixed] for x in found)))
    assert again.values == pytest.approx(scores.values)


def loop_voc(store, found, label, threshold):
    """AP by 11 points and by area, one detection after the other."""
    taken, right, wrong, curve = set(), 0, 0, [(0.0, 0.0)]
    wanted = sum(
        int(np.sum((c == label) & ~d))
        for c, d in zip(store.labels, store.difficult, strict=True)
    )
    for k in np.argsort(-found.scores):
        if found.classes[k] != label:
            continue
        row, best, which = found.image[k], -1.0, None
        for j, box in enumerate(store.boxes[row]):
            a, b = np.float64(found.boxes[k]), np.float64(box)
            side = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
            both = np.prod(side)
            iou = both / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both)
            if store.labels[row][j] == label and iou > best:
                best, which = iou, j
        if best >= threshold and store.difficult[row][which]:
            continue
        if best >= threshold and (row, which) not in taken:
            taken.add((row, which))
            right += 1
        else:
            wrong += 1
        curve.append((right / wanted, right / (right + wrong)))
    recall, precision = np.array(curve).T
    points = [max(precision[recall > t / 10 - 1e-9], default=0.0) for t in range(11)]
    steps = [
        (recall[i] - recall[i - 1]) * precision[i:].max() for i in range(1, len(curve))
    ]
    return np.mean(points), sum(steps)


def test_as_pycocotools_has_it_by_itself():
    """Without difficult objects nothing of its own preparation is missing."""
    store, found = make_random(7, difficult=0)
    sizes = [np.float64(b[:, 2:] - b[:, :2]) for b in [*store.boxes, found.boxes]]
    objects = [
        (row, int(label), [*box[:2].tolist(), *size.tolist()])
        for row, (boxes, labels) in enumerate(
            zip(store.boxes, store.labels, strict=True)
        )
        for box, label, size in zip(boxes, labels, sizes[row], strict=True)
    ]
    keys = ("image_id", "category_id", "bbox")
    truth = COCO()
    truth.dataset = {
        "images": [{"id": row} for row in range(len(store.boxes))],
        "categories": [{"id": c} for c in range(3)],
        "annotations": [
            {"id": i, "iscrowd": 0, "area": x[2][2] * x[2][3]}
            | dict(zip(keys, x, strict=True))
            for i, x in enumerate(objects, start=1)
        ],
    }
    results = [
        {"image_id": int(row), "category_id": int(label), "score": float(score)}
        | {"bbox": [*box[:2].tolist(), *size.tolist()]}
        for row, box, score, label, size in zip(*found, sizes[-1], strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        reference = COCOeval(truth, truth.loadRes(results), "bbox")
        reference.evaluate()
        reference.accumulate()
        reference.summarize()
    got = average_precision(store, found)
    names = ("ap", "ap50", "ap75")
    assert 0.1 < got.values["ap"] < got.values["ap50"] < 0.95
    assert [got.values[name] for name in names] == pytest.approx(reference.stats[:3])
    curves = np.stack(list(got.curves.values()), axis=1)
    np.testing.assert_array_equal(curves, reference.eval["precision"][0, :, :, 0, 2])


def test_nothing_is_printed(capsys):
    values(make_store([(place(0), 0)]), (0, place(0), 0.5, 0))
    assert capsys.readouterr().out == ""


def test_coco_looks_at_100_detections_of_an_image_and_class():
    store = make_store([(place(0), 0)])
    rows = [(0, FAR, 0.9, 0)] * 99 + [(0, FAR, 0.9, 1)] * 50
    got = values(store, *rows, (0, place(0), 0.5, 0))
    assert got["ap50"] == pytest.approx(1 / 100)
    got = values(store, *rows, (0, FAR, 0.9, 0), (0, place(0), 0.5, 0))
    assert got["ap50"] == 0
    assert got["voc_ap50"] == pytest.approx(1 / 101)
