"""Precision over recall at an IoU of 0.5, of several detectors."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt

from eval.plots.figure import draw_band, drawable, legend_above, make_panels


def draw_precision(
    curves: Mapping[str, Sequence[Mapping[str, np.ndarray]]], by_class: bool = False
) -> plt.Figure:
    """Draw precision over recall; seeds as a band.

    Args:
      curves: label -> for each seed the `Scores.curves` of its detections.
      by_class: draws each class, too; without it only the mean over the classes.

    Raises:
      ValueError: nothing to draw.
    """
    if not curves:
        raise ValueError("There is no curve to draw.")
    names = next(iter(curves.values()))[0]
    panels = {"mean over classes": list(names)}
    if by_class:
        panels |= {name: [name] for name in names}
    columns, side = min(4, len(panels)), 4.6 if len(panels) == 1 else 2.9
    figure, axes = make_panels(
        len(panels), columns, (side, 0.85 * side), sharex=True, sharey=True
    )
    for number, (title, classes) in enumerate(panels.items()):
        axis = axes.flat[number]
        for i, group in enumerate(curves.values()):
            # [seeds, 101], a mean over the classes.
            lines = np.array([[seed[c] for c in classes] for seed in group]).mean(1)
            recall, ap = np.linspace(0, 1, lines.shape[1]), f"{lines.mean():.3f}"
            draw_band(axis, recall, lines, f"C{i}", lw=1.6, label=ap)
        axis.set_title(drawable(title), fontsize=10)
        axis.set(xlim=(0, 1), ylim=(0, 1.02))
        axis.tick_params(labelbottom=number + columns >= len(panels))
        # The names stand once, above all: here they would cover curves.
        small = {"title_fontsize": 8, "fontsize": 8, "frameon": False}
        axis.legend(title="AP50", loc="upper right", borderaxespad=0, **small)
    legend_above(figure, list(curves), 2 * columns)
    figure.supxlabel("recall", fontsize=10)
    figure.supylabel("precision at IoU 0.5", fontsize=10)
    return figure
