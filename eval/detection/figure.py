r"""Compare detection from several backbones: a table and precision over recall.

  python -m eval.detection.figure --out=FOLDER RUN/detection/CONFIG RUN/detection/CONFIG ...

reads what `eval.detection` has written into these folders. Prints the table and writes

* `detection.csv`: the table,
* `detection.png`: precision over recall at an IoU of 0.5,
* `detection.html`: both on one page, which needs no network.

Detections whose backbones differ in nothing but their seed are seeds of one thing: mean and
sample standard deviation in the table, mean and range in the figure. One without --checkpoint
is the untrained network.
"""

import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from matplotlib import pyplot as plt

from eval.compare import tables
from eval.compare.runs import Run, read_run
from eval.compare.tables import Comparison
from eval.evaluator import Number
from eval.pages import write_comparison
from eval.plots import figure as plots
from eval.results import Result, read_result
from sp_jax import cli
from sp_jax.config import flatten
from sp_jax.errors import UserError
from sp_jax.json_file import read_json
from sp_jax.train.identity import is_free

RANDOM = "untrained (random network)"


class Detection(NamedTuple):
    """A finished detection."""

    run: Run  # what its backbone is; the path is the detection's
    protocol: dict[str, Any]  # what all of a table have to share but the seed
    content: dict[str, Any]  # of its result
    curves: dict[str, np.ndarray]  # class name -> precision at 101 recalls


def read_detection(folder: pathlib.Path) -> Detection:
    """Read the result of a folder of `eval.detection`; UserError if none is finished."""
    same = ("batch_size", "total_steps", "data", "optimizer", "detector", "dtype")
    try:
        config = read_json(folder / "config.json")
        written = read_result(folder / "eval" / "detection.json")
        with np.load(folder / "detections.npz") as found:
            curves = dict(zip(found["names"].tolist(), found["curves"], strict=True))
        checkpoint, seed = config["checkpoint_of_backbone"], config["seed"]
        protocol = flatten({name: config[name] for name in same})
        protocol = {n: value for n, value in protocol.items() if not is_free(n)}
        images = {f"images: {n}": config["fingerprints"][n] for n in ("train", "test")}
        protocol |= images
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        why = f"{folder / 'config.json'} has no {error}"
        if not isinstance(error, KeyError | TypeError):
            why = str(error).rstrip(".")
        raise UserError(
            f"{folder} holds no finished detection ({why}): make one with python -m "
            f"eval.detection --config=… --checkpoint=… --workdir={folder}."
        ) from error
    if written["step"] != config["total_steps"]:
        raise UserError(
            f"{folder} is at step {written['step']} of {config['total_steps']}: let "
            "eval.detection finish it first."
        )
    run = _backbone_of(folder, checkpoint, seed)._replace(
        step=written["step"], total=written["step"]
    )
    numbers = tuple(Number(name, percent=True) for name in written["result"])
    return Detection(run, protocol, written | {"headline": numbers}, curves)


def _backbone_of(folder: pathlib.Path, checkpoint: str, seed: int) -> Run:
    """The identity of a detection's backbone; the seed is that of backbone and detection."""
    if not checkpoint or not pathlib.Path(checkpoint).exists():
        kind = pathlib.Path(checkpoint).name if checkpoint else RANDOM
        return Run(folder, {"kind": kind}, seed, 0, None, "")
    run = read_run(checkpoint)
    facts = dict(run.facts)
    if step := facts.pop("step", None):
        facts["backbone.step"] = step
    return run._replace(path=folder, facts=facts, seed=(run.seed, seed))


def compare(folders: Sequence[str], out: pathlib.Path) -> Comparison:
    """Write the tables, the figure and the page of finished detections into the folder `out`.

    Raises:
      UserError: nothing to compare, or different protocols.
    """
    if not folders:
        raise UserError("Give the folders of one or more detections to compare.")
    found = [read_detection(pathlib.Path(folder)) for folder in folders]
    first = found[0]
    for folder, one in zip(folders, found, strict=True):
        for name in sorted(one.protocol.keys() | first.protocol.keys()):
            if one.protocol.get(name) != first.protocol.get(name):
                raise UserError(
                    f"{folders[0]} and {folder} differ in their {name}: only detections "
                    "of one protocol can be compared."
                )
    results = [
        (x.run, [Result("detection", x.run.path, x.content, False)]) for x in found
    ]
    comparison = tables.compare(results, headlines=len(first.content["result"]))
    out.mkdir(parents=True, exist_ok=True)
    drawn = {one.run.path: one.curves for one in found}
    curves = {
        label: [drawn[run.path] for run in runs]
        for label, runs in comparison.newest.items()
    }
    path = out / "detection.png"
    plots.save_figure(draw_precision(curves, by_class=True), path)
    pictures = [("Precision over recall", path)]
    write_comparison(out / "detection", "Detection", comparison, pictures)
    return comparison


def draw_precision(
    curves: Mapping[str, Sequence[Mapping[str, np.ndarray]]], by_class: bool = False
) -> plt.Figure:
    """Draw precision over recall; seeds as a band. ValueError if there is nothing to draw.

    Curves are label -> for each seed the `Scores.curves` of its detections; `by_class` draws
    each class, too, not only the mean over the classes.
    """
    if not curves:
        raise ValueError("There is no curve to draw.")
    names = next(iter(curves.values()))[0]
    panels = {"mean over classes": list(names)}
    if by_class:
        panels |= {name: [name] for name in names}
    columns, side = min(4, len(panels)), 4.6 if len(panels) == 1 else 2.9
    figure, axes = plots.make_panels(
        len(panels), columns, (side, 0.85 * side), sharex=True, sharey=True
    )
    for number, (title, classes) in enumerate(panels.items()):
        axis = axes.flat[number]
        for i, group in enumerate(curves.values()):
            # [seeds, 101], a mean over the classes.
            lines = np.array([[seed[c] for c in classes] for seed in group]).mean(1)
            recall, ap = np.linspace(0, 1, lines.shape[1]), f"{lines.mean():.3f}"
            plots.draw_band(axis, recall, lines, f"C{i}", lw=1.6, label=ap)
        axis.set_title(plots.drawable(title), fontsize=10)
        axis.set(xlim=(0, 1), ylim=(0, 1.02))
        axis.tick_params(labelbottom=number + columns >= len(panels))
        # The names stand once, above all: here they would cover curves.
        small = {"title_fontsize": 8, "fontsize": 8, "frameon": False}
        axis.legend(title="AP50", loc="upper right", borderaxespad=0, **small)
    plots.legend_above(figure, list(curves), 2 * columns)
    figure.supxlabel("recall", fontsize=10)
    figure.supylabel("precision at IoU 0.5", fontsize=10)
    return figure


def main(paths: list[str]) -> None:
    """Compare the folders given as arguments."""
    out = pathlib.Path(flags.FLAGS.out)
    comparison = compare(paths, out)
    tables.print_comparison(tables.make_table(comparison), comparison)
    print(f"\nTable, figure and page: {out}")


if __name__ == "__main__":
    flags.DEFINE_string("out", "runs", "Folder of the table and the figure.")
    cli.run(main, positional=True)
