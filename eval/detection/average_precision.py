"""How good detections are: average precision by COCO's and by PASCAL VOC's rules.

A detection is right if it has the class of an object and overlaps it enough: the IoU
(intersection over union) reaches a threshold. AP is the area under precision over recall, of
one class and one threshold; what is reported are means over the classes.

  ap, ap50, ap75     COCO's AP: precision at 101 recalls, mean over the ten IoUs 0.5, 0.55, ...,
                     0.95, or at one of them; at most 100 detections an image and class. By
                     pycocotools (https://github.com/ppwwyyxx/cocoapi).
  voc07_ap, voc07_ap50, voc07_ap75   VOC's AP until 2009: precision at 11 recalls, at the same
                     IoUs. This is what MoCo's and Detectron2's tables give for VOC 2007.
  voc_ap50           VOC's AP from 2010 on: the whole area, at IoU 0.5.
                     (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html)

The two differ in the matching, too. COCO gives a detection the best object that is still
free; VOC the best of all, so that a second detection of it is wrong. An object that is
`difficult` need not be found. VOC forgives every detection of it, COCO one for each.

Detectron2 rounds scores to 0.001 and boxes to 0.1 pixels before it applies VOC's rules, and
wants an IoU above the threshold, where VOC's own code takes one that is equal.
"""

import collections
import contextlib
import io
from typing import Any, NamedTuple

import numpy as np

from eval.detection.data.box_store import BoxStore
from sp_jax.errors import UserError

IOUS = np.linspace(0.5, 0.95, 10)
_AT = {"": slice(None), "50": slice(0, 1), "75": slice(5, 6)}  # which of the IOUS


class Detections(NamedTuple):
    """K detected boxes in the images of a store, in any order."""

    image: np.ndarray  # int32 [K], row of the store
    boxes: np.ndarray  # float32 [K, 4], x1, y1, x2, y2 in pixels of the image as stored
    scores: np.ndarray  # float32 [K], higher is surer
    classes: np.ndarray  # int32 [K], from 0

    def of_image(self, row: int) -> "Detections":
        """The detections in one image."""
        return Detections(*(field[self.image == row] for field in self))


class Scores(NamedTuple):
    """All in [0, 1]."""

    values: dict[str, float]  # the numbers of the module's description, by name
    ap50_by_class: dict[str, float]  # COCO's AP at IoU 0.5; their mean is `ap50`
    curves: dict[str, np.ndarray]  # class -> precision at 101 recalls, float64, IoU 0.5
    left_out: tuple[str, ...]  # classes without an object to find: in no mean


def average_precision(store: BoxStore, detections: Detections) -> Scores:
    """Compare detections with the objects; low scores count, too, and raise the recall.

    Raises:
      ValueError: a detection in an image, or of a class, that the store does not have.
      UserError: no image has an object to find, or a detection is not finite.
    """
    _check(store, detections)
    # Objects to find in each class: int64 [C].
    easy = ~np.concatenate(store.difficult)
    labels = np.concatenate(store.labels)[easy]
    wanted = np.bincount(labels, minlength=len(store.class_names))
    kept = np.flatnonzero(wanted)
    if not len(kept):
        raise UserError(
            "No image has an object to find (all are difficult, or there are none), so "
            "there is no average precision."
        )
    precision = _coco_precision(store, detections)[:, kept]
    points, area = _voc_precision(store, detections, kept, wanted)
    values = {f"ap{name}": float(precision[at].mean()) for name, at in _AT.items()}
    values |= {f"voc07_ap{name}": float(points[at].mean()) for name, at in _AT.items()}
    values["voc_ap50"] = float(area[0].mean())
    curves = {store.class_names[c]: precision[0, i] for i, c in enumerate(kept)}
    by_class = {name: float(curve.mean()) for name, curve in curves.items()}
    left_out = tuple(store.class_names[c] for c in np.flatnonzero(wanted == 0))
    return Scores(values, by_class, curves, left_out)


def _check(store: BoxStore, detections: Detections) -> None:
    image, boxes, scores, classes = detections
    rows = ("image", image, store.boxes), ("class", classes, store.class_names)
    for what, found, there in rows:
        if len(wrong := found[(found < 0) | (found >= len(there))]):
            raise ValueError(
                f"A detection has {what} {wrong[0]}; there are {len(there)}."
            )
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise UserError("A detection is not finite: the detector has diverged.")


def _corner_size(boxes: np.ndarray) -> np.ndarray:
    """Boxes [n, 4] in pycocotools' form: float64 x1, y1, width, height."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _by_image_and_class(
    images: np.ndarray, classes: np.ndarray, boxes: np.ndarray, **fields: np.ndarray
) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """Boxes in the form of pycocotools' tables; `fields` has the other fields of each box."""
    found = collections.defaultdict(list)
    columns = [x.tolist() for x in (images, classes, *fields.values())]
    lines = zip(_corner_size(boxes), *columns, strict=True)
    # From 1: 0 would mean "not matched".
    for number, (box, row, label, *values) in enumerate(lines, start=1):
        one = {"id": number, "bbox": box, "area": box[2] * box[3]}
        found[row, label].append(one | dict(zip(fields, values, strict=True)))
    return found


def _coco_precision(store: BoxStore, detections: Detections) -> np.ndarray:
    """Precision at 101 recalls: float64 [10, C, 101]; -1 for classes without objects."""
    from pycocotools.cocoeval import COCOeval

    coco = COCOeval(iouType="bbox")
    # Its tables are filled here: it takes objects to ignore for crowds, of another IoU.
    coco._prepare = lambda: None
    image = np.arange(len(store.boxes))
    coco.params.imgIds = image.tolist()
    coco.params.catIds = list(range(len(store.class_names)))
    coco.params.iouThrs = IOUS
    coco.params.areaRng = [[0, np.inf]]
    coco.params.maxDets = [100]
    difficult = np.concatenate(store.difficult)
    coco._gts = _by_image_and_class(
        np.repeat(image, [len(boxes) for boxes in store.boxes]),
        np.concatenate(store.labels),
        np.concatenate(store.boxes),
        ignore=difficult.astype(int),
        iscrowd=np.zeros(len(difficult), int),
    )
    coco._dts = _by_image_and_class(
        detections.image, detections.classes, detections.boxes, score=detections.scores
    )
    with contextlib.redirect_stdout(io.StringIO()):
        coco.evaluate()
        coco.accumulate()
    return coco.eval["precision"][..., 0, 0].swapaxes(1, 2)


def _voc_precision(
    store: BoxStore, detections: Detections, classes: np.ndarray, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """VOC's AP of some classes by 11 points and by area: float64 [10, n] each."""
    overlap, which = _best_objects(store, detections)
    difficult = np.concatenate(store.difficult)
    order = np.lexsort((detections.image, -detections.scores))
    points, area = np.zeros((2, len(IOUS), len(classes)))
    for column, number in enumerate(classes):
        mine = order[detections.classes[order] == number]
        for line, threshold in enumerate(IOUS):
            hit = overlap[mine] >= threshold
            counted = mine[~(hit & difficult[which[mine]])]
            right = np.flatnonzero(overlap[counted] >= threshold)
            # The first, and so the surest, of an object's detections.
            _, first = np.unique(which[counted[right]], return_index=True)
            is_true = np.zeros(len(counted), bool)
            is_true[right[first]] = True
            points[line, column], area[line, column] = _voc_ap(is_true, wanted[number])
    return points, area


def _best_objects(
    store: BoxStore, detections: Detections
) -> tuple[np.ndarray, np.ndarray]:
    """The largest IoU of each detection in its class, or -1, and that object's number."""
    from pycocotools import mask

    overlap = np.full(len(detections.scores), -1.0)
    which = np.zeros(len(overlap), np.int64)
    order = np.argsort(detections.image, kind="stable")
    rows = np.arange(1, len(store.boxes))
    by_image = np.split(order, np.searchsorted(detections.image[order], rows))
    first = 0  # object of the image
    for mine, boxes, labels in zip(by_image, store.boxes, store.labels, strict=True):
        if len(mine) and len(boxes):
            found, there = map(_corner_size, (detections.boxes[mine], boxes))
            iou = mask.iou(found, there, np.zeros(len(boxes)))
            iou = np.where(detections.classes[mine][:, None] == labels, iou, -1)
            overlap[mine], which[mine] = iou.max(1), first + iou.argmax(1)
        first += len(boxes)
    return overlap, which


def _voc_ap(is_true: np.ndarray, wanted: int) -> tuple[float, float]:
    """AP by 11 points and by area, from correct detections bool [n], by falling score."""
    found = np.cumsum(is_true)
    precision = found / np.arange(1, len(found) + 1)
    # The best precision at this recall or a higher one; behind the last there is none.
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
    # In whole numbers: 3 of 10 reach a recall of 0.3, which they do not in floats.
    reached = np.searchsorted(10 * found, np.arange(11) * wanted)
    return best[reached].mean(), best[:-1][is_true].sum() / wanted
