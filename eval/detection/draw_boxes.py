"""Draw the detections of a detector: boxes on images, with labels where they hide least."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib import patheffects
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path

from eval.detection.average_precision import Detections
from eval.plots.figure import drawable

WIDTH, GAP = 12.0, 0.06  # of a sheet and between its images, in inches
_FONT, _PAD = 7.5, 1.5  # of a label, in points
_DASHES = (0, (4, 3))

# Seven colours that the colour-blind can tell apart (https://jfly.uni-koeln.de/color/), then
# the same paler and darker. matplotlib's first is black.
_HUES = np.array([to_rgb(c) for c in matplotlib.color_sequences["okabe_ito"][1:]])
COLOURS = np.concatenate([_HUES, 0.5 + 0.5 * _HUES, 0.55 * _HUES])


def draw_detections(
    images: Sequence[np.ndarray],
    detections: Sequence[Detections],
    truth: Sequence[tuple[np.ndarray, np.ndarray]],
    class_names: Sequence[str],
    threshold: float = 0.5,
    columns: int = 4,
) -> plt.Figure:
    """Draw the detections in some images, and the true objects.

    Images uint8 [h, w, 3] of any sizes are drawn equally high, `columns` in a row. The truth of
    each is boxes float32 [n, 4] and labels int32 [n]; `Detections.of_image` selects what was
    found. ValueError without images, or with fewer detections or objects than images.
    """
    if not images:
        raise ValueError("There is no image to draw.")
    shown = [_surest(found, threshold) for found in detections]
    colours = _class_colours(shown, [labels for _, labels in truth])
    places, height = _justify([x.shape[1] / x.shape[0] for x in images], columns)
    figure = plt.figure(figsize=(WIDTH, height))
    parts = zip(images, shown, truth, places, strict=True)
    for image, found, (boxes, _), (x, y, w, h) in parts:
        axis = figure.add_axes((x / WIDTH, 1 - (y + h) / height, w / WIDTH, h / height))
        _draw_image(axis, image, found, boxes, class_names, colours, 72 * w)
    line = Line2D([], [], color="white", lw=1.2, ls=_DASHES, path_effects=_outline(2.4))
    frame = Line2D([], [], color=COLOURS[0], lw=2)
    figure.legend(
        [line, frame],
        ["object", f"detection with class and score, at least {threshold:g}"],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.01),
        ncols=2,
        fontsize=9,
        # As on an image: a white line has to show.
        facecolor="#666666",
        labelcolor="white",
        framealpha=1,
    )
    return figure


def _justify(
    aspects: Sequence[float], columns: int
) -> tuple[list[tuple[float, float, float, float]], float]:
    """Left, top, width and height of each image in full rows, and their height, in inches."""
    places, top = [], 0.0
    for start in range(0, len(aspects), columns):
        row = aspects[start : start + columns]
        # A row that is not full, or only of upright images, need not fill the width.
        height = min((WIDTH - GAP * (len(row) - 1)) / sum(row), 1.2 * WIDTH / columns)
        left = 0.0
        for aspect in row:
            places.append((left, top, aspect * height, height))
            left += aspect * height + GAP
        top += height + GAP
    return places, top - GAP


def _surest(found: Detections, threshold: float) -> Detections:
    """The detections with a score of at least the threshold, by falling score."""
    order = np.argsort(-found.scores, kind="stable")
    order = order[found.scores[order] >= threshold]
    return Detections(*(field[order] for field in found))


def _class_colours(
    shown: Sequence[Detections], labels: Sequence[np.ndarray]
) -> dict[int, np.ndarray]:
    """A colour for each class, the clearest for most objects: so sheets mostly agree."""
    classes, counts = np.unique(np.concatenate(labels), return_counts=True)
    others = np.setdiff1d(np.concatenate([x.classes for x in shown]), classes)
    order = [*classes[np.argsort(-counts, kind="stable")], *others]
    return {int(c): COLOURS[i % len(COLOURS)] for i, c in enumerate(order)}


def _draw_image(
    axis: plt.Axes,
    image: np.ndarray,
    found: Detections,
    boxes: np.ndarray,
    class_names: Sequence[str],
    colours: Mapping[int, np.ndarray],
    width: float,
) -> None:
    """One image that is `width` points wide, with its boxes, by falling score."""
    h, w = image.shape[:2]
    axis.imshow(image, extent=(0, w, h, 0))
    axis.set_axis_off()
    for box in boxes:
        axis.add_patch(_frame(box, "white", 1.2, 2.4, ls=_DASHES))
    # The surest are drawn over the others, and choose the place of their label first.
    for box, label in zip(found.boxes[::-1], found.classes[::-1], strict=True):
        axis.add_patch(_frame(box, colours[int(label)], 1.8, 2.8))
    point = w / width  # in pixels of the image
    font = FontProperties(size=_FONT)
    covered, labels = np.concatenate([boxes, found.boxes]), np.zeros((0, 4))
    for _, box, score, label in zip(*found, strict=True):
        name, colour = drawable(class_names[label]), colours[int(label)]
        text = f"{name} {score:.2f}"
        length, _, _ = text_to_path.get_text_width_height_descent(text, font, False)
        # On pixels letters are a little wider than on paper; all lines are equally high.
        size = point * (np.array([1.04 * length, _FONT]) + 2 * _PAD)
        x, y = place_label(size, box, (w, h), covered, labels)
        labels = np.append(labels, [[x, y, x + size[0], y + size[1]]], axis=0)
        axis.add_patch(Rectangle((x, y), *size, color=colour, lw=0, zorder=3))
        axis.text(
            x + point * _PAD,
            y + size[1] - point * (_PAD + 0.2 * _FONT),
            text,
            fontsize=_FONT,
            color="white" if colour @ (0.299, 0.587, 0.114) < 0.5 else "black",
            zorder=4,
        )


def _outline(width: float) -> list[patheffects.AbstractPathEffect]:
    """A dark line behind a light one, so that it is visible on any image."""
    behind = patheffects.Stroke(linewidth=width, foreground="black", alpha=0.7)
    return [behind, patheffects.Normal()]


def _frame(box: np.ndarray, colour, width: float, outline: float, **style) -> Rectangle:
    style |= {"edgecolor": colour, "lw": width, "path_effects": _outline(outline)}
    return Rectangle(box[:2], *(box[2:] - box[:2]), fill=False, **style)


def place_label(
    size: np.ndarray,
    box: np.ndarray,
    image_size: tuple[int, int],
    boxes: np.ndarray,
    labels: np.ndarray,
) -> tuple[float, float]:
    """The place, left and top, where a box's label hides least, around the box or inside.

    All is in pixels of the image; sizes are width and height. `boxes` float [n, 4] should stay
    visible; covering `labels` float [m, 4], which are there already, is worse.
    """
    w, h = size
    x1, y1, x2, y2 = box
    # The first of equal ones is taken.
    corners = [
        *[(x1, y1 - h), (x2 - w, y1 - h), (x1, y2), (x2 - w, y2)],
        *[(x2, y1), (x1 - w, y1), (x2, y2 - h), (x1 - w, y2 - h)],
        *[(x1, y1), (x2 - w, y1), (x1, y2 - h), (x2 - w, y2 - h)],
    ]
    limit = np.maximum(np.array(image_size) - size, 0)
    corners = np.clip(corners, 0, limit)
    places = np.concatenate([corners, corners + size], axis=1)
    cost = _overlap(places, boxes).sum(1) + 10 * _overlap(places, labels).sum(1)
    return tuple(corners[cost.argmin()])


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Common area of boxes [n, 4] and [m, 4]: [n, m]."""
    sides = np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2])
    return np.maximum(sides, 0).prod(-1)
