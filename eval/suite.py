r"""All evaluations of some checkpoints on some datasets, and one page that shows them.

  python -m eval.suite --checkpoint=RUN,RUN --datasets=emoji,folder:/data/cifar10 \
    --out=runs/suite

Each result is written to `eval/NAME.json` of its run as soon as it is there, and is used
again if it was measured the same way, with the same weights and on the same images: a suite
that was stopped goes on. In --out:

* `suite.html`: tables with protocols, and pictures; it needs no network,
* `suite.csv`: every number,
* `DATASET/`: the pictures.

Checkpoints of one label (the kind of their pairs) are seeds of one thing: mean and sample
standard deviation. A dataset needs the splits probe_train and probe_test, or train and
test, val or validation.
"""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags

import eval as evals
import sp_jax
from eval import cli, figures, invariance_figure, report
from eval.pages import write_page
from eval.plots.figure import save_figure
from eval.results import evaluate_once, run_folder
from eval.runs import by_label, format_csv, format_table, label_of, mean_text, read_run
from input_pipeline.stores import ImageStore, find_splits, open_store
from sp_jax import cli as programs
from sp_jax import xla_flags
from sp_jax.errors import UserError
from sp_jax.features import Extractor
from sp_jax.files import write_text

EVALUATIONS = (
    *("knn", "linear_probe", "logistic", "few_labels", "finetune"),
    *("retrieval", "metrics", "invariance"),
)
_SPLITS = (
    ("probe_train", "probe_test"),
    *(("train", test) for test in ("test", "val", "validation")),
)
# What the drawings are labelled with beside their concepts, which no two images share
# within an artist.
_TARGETS = {"emoji": ("category", "subcategory")}
# Those of an evaluator of another name, or with options of their own.
_EVALUATORS = {"logistic": "linear_probe"}
_OPTIONS = {"linear_probe": {"seeds": 3}, "logistic": {"protocol": "lbfgs", "seeds": 3}}
_OF_EACH_TARGET = ("knn", "linear_probe", "logistic", "few_labels")


class Entry(NamedTuple):
    """One evaluation of a dataset.

    Attributes:
      name: of the result in a run's folder.
      kind: of `EVALUATIONS`.
      target: what is predicted.
      module: the evaluator.
      options: of it.
    """

    name: str
    kind: str
    target: str
    module: Any
    options: dict[str, Any]


class Checkpoint(NamedTuple):
    """A network to evaluate, and the label of its column."""

    path: str
    label: str
    extractor: Extractor


def _word(name: str) -> str:
    """A name as a part of a file's."""
    return re.sub(r"\W+", "_", name).strip("_")


def find_pair(dataset: str, prepared: Mapping[str, Any]) -> tuple[str, str]:
    """The splits of a store to fit and to test on.

    Raises:
      UserError: there is no such store, or it has no such splits.
    """
    known = find_splits(dataset, **prepared)
    for pair in _SPLITS:
        if set(pair) <= set(known):
            return pair
    raise UserError(
        f"{dataset} has the splits {', '.join(known) or 'none'}: to fit and to test "
        "it needs probe_train and probe_test, or train and test, val or validation."
    )


def plan(
    dataset: str, kinds: Sequence[str], prepared: Mapping[str, Any]
) -> list[Entry]:
    """The evaluations of a dataset.

    Args:
      dataset: name of a store.
      kinds: of `EVALUATIONS`, or import paths of evaluators.
      prepared: how its images are prepared: image_size, resize.

    Raises:
      UserError: see `find_pair`.
    """
    fit, test = find_pair(dataset, prepared)
    entries = []
    for kind in kinds:
        module = evals.get(_EVALUATORS.get(kind, kind))
        known = {field.name for field in dataclasses.fields(module.Options)}
        given = {"train_split": fit, "test_split": test, "split": test}
        given |= {"splits": (fit, test)}
        if kind == "retrieval" and dataset != "emoji":
            given |= {"splits": (test,), "protocol": "leave_one_out"}
        options = {"dataset": dataset, **prepared, **_OPTIONS.get(kind, {})}
        options |= {name: value for name, value in given.items() if name in known}
        targets = _TARGETS.get(dataset, ("label",)) if "target" in known else ("",)
        for target in targets if kind in _OF_EACH_TARGET else targets[:1]:
            name = "_".join(filter(None, (_word(kind), _word(dataset), target)))
            own = options | {"target": target} if target else options
            entries.append(Entry(name, kind, target, module, own))
    return entries


def make_table(
    entries: Sequence[Entry], labels: Sequence[str], results: Sequence[Sequence[dict]]
) -> list[list[str]]:
    """Rows of text: the headline of each evaluation, a column a label.

    Args:
      entries: the evaluations.
      labels: of the checkpoints.
      results: for each checkpoint, the content of the result of each entry.
    """
    groups = by_label(results, labels)
    table = [["evaluation", "target", "measure", *groups]]
    for j, entry in enumerate(entries):
        for key in [number.name for number in results[0][j]["headline"]]:
            values = [[row[j]["result"][key] for row in x] for x in groups.values()]
            cells = [entry.kind, entry.target, key.replace("_", " ")]
            table.append(cells + [mean_text(x) for x in values])
    return table


def draw(
    checkpoints: Sequence[Checkpoint],
    entries: Sequence[Entry],
    results: Sequence[Sequence[dict]],
    store: ImageStore,
    out: pathlib.Path,
) -> list[tuple[str, list[tuple[str, pathlib.Path]]]]:
    """Pictures of a dataset's test images: title, and for each label a file."""
    shown = []
    kinds = [entry.kind for entry in entries]
    if "invariance" in kinds:
        found = [row[kinds.index("invariance")]["result"] for row in results]
        groups = by_label(found, [checkpoint.label for checkpoint in checkpoints])
        path = out / "invariance.png"
        save_figure(invariance_figure.draw_figure(groups), path)
        shown.append(("The four invariances", [("", path)]))
    target = _TARGETS.get(store.name, ("label",))[0]
    drawn: dict[str, list[tuple[str, pathlib.Path]]] = {}
    for label, (first, *_) in by_label(checkpoints).items():
        for path in figures.draw(first.extractor, store, target, out / _word(label)):
            drawn.setdefault(path.stem, []).append((label, path))
    titles = figures.TITLES.items()
    return shown + [(title, drawn[name]) for name, title in titles if name in drawn]


def _about(checkpoint: Checkpoint) -> list[str]:
    """The row of a checkpoint in the first table."""
    info = checkpoint.extractor.backbone.info
    config = info.get("config", {})
    model = config.get("model", {}).get("name")
    name = model or type(checkpoint.extractor.backbone.module).__name__
    method = config.get("method") or info.get("method") or "?"
    path = pathlib.Path(checkpoint.path).name
    return [path, checkpoint.label, method, name, info["step"], config.get("seed", "?")]


def run(
    paths: Sequence[str],
    datasets: Sequence[str],
    kinds: Sequence[str],
    out: pathlib.Path,
) -> list[list[str]]:
    """Evaluate, draw and write the page.

    Args:
      paths: runs' folders, checkpoints or files of weights.
      datasets: names of image stores.
      kinds: of `EVALUATIONS`, or import paths of evaluators.
      out: folder of what is written.

    Returns:
      The tables of all datasets, one under the other, with the dataset first.

    Raises:
      UserError: a checkpoint, a dataset or an evaluation is not there or does not fit.
    """
    unknown = [one for one in kinds if one not in EVALUATIONS and "." not in one]
    if unknown:
        raise UserError(
            f"There is no evaluation {unknown[0]!r}: choose among {', '.join(EVALUATIONS)}."
        )
    prepared = [cli.images_of(path) for path in paths]
    if any(one != prepared[0] for one in prepared):
        raise UserError(
            "The runs prepared their images differently (image_size, resize): evaluate "
            "them one by one."
        )
    # Mistakes in any dataset show before the first hour of work.
    plans = {dataset: plan(dataset, kinds, prepared[0]) for dataset in datasets}
    evaluators = {
        dataset: [evals.make(entry.module, entry.options) for entry in entries]
        for dataset, entries in plans.items()
    }
    checkpoints = [
        Checkpoint(path, label_of(run_folder(path)), Extractor(sp_jax.load(path)))
        for path in paths
    ]
    labels = [checkpoint.label for checkpoint in checkpoints]
    out.mkdir(parents=True, exist_ok=True)
    sections, tables, numbers = [], [], []
    for dataset, entries in plans.items():
        results: list[list[dict]] = []
        for path, label, extractor in checkpoints:
            results.append([])
            for entry, evaluate in zip(entries, evaluators[dataset], strict=True):
                content = evaluate_once(evaluate, extractor, path, entry.name)
                results[-1].append(content)
                result, first = content["result"], content["headline"][0].name
                print(f"{path}: {entry.name}: {first} {result[first]:.4f}", flush=True)
                about = [path, label, dataset, entry.name]
                numbers += [[*about, key, value] for key, value in result.items()]
        table = make_table(entries, labels, results)
        folder = out / _word(dataset)
        folder.mkdir(exist_ok=True)
        store = open_store(dataset, find_pair(dataset, prepared[0])[1], **prepared[0])
        measured = zip(entries, results[0], strict=True)
        section = {"name": dataset, "table": table}
        section["protocols"] = {entry.name: one["protocol"] for entry, one in measured}
        section["pictures"] = draw(checkpoints, entries, results, store, folder)
        sections.append(section)
        tables += [[dataset, *row] for row in table[1:]]
    header = ["checkpoint", "label", "dataset", "evaluation", "measure", "value"]
    write_text(out / "suite.csv", format_csv([header, *numbers]))
    about = ["checkpoint", "label", "method", "backbone", "step", "seed"]
    write_page(
        out / "suite.html",
        "suite.html",
        title="Evaluation of frozen features",
        checkpoints=[about, *map(_about, checkpoints)],
        datasets=sections,
        versions=content["versions"],
        curves=_curves(paths, out),
    )
    return [["dataset", *table[0]], *tables]


def _curves(paths: Sequence[str], out: pathlib.Path) -> pathlib.Path | None:
    """The curves of those that are runs' folders."""
    folders = dict.fromkeys(run_folder(path) for path in paths)
    runs = [read_run(x) for x in folders if (x / "metrics.jsonl").is_file()]
    if not runs:
        return None
    report.draw_curves(runs, out / "curves.png")
    return out / "curves.png"


def main() -> None:
    """Run the suite of the flags."""
    values = flags.FLAGS
    out = pathlib.Path(values.out)
    table = run(values.checkpoint, values.datasets, values.evaluations, out)
    print(format_table(table))
    print(f"\nThe page: {out / 'suite.html'}")


if __name__ == "__main__":
    flags.DEFINE_list("checkpoint", None, "Runs, checkpoints or files.", required=True)
    flags.DEFINE_list("datasets", ["emoji"], "Image stores.")
    flags.DEFINE_list(
        "evaluations",
        list(EVALUATIONS),
        "What to measure; an import path for an evaluator of your own.",
    )
    flags.DEFINE_string("out", "runs/suite", "Folder of the page.")
    xla_flags.set_cpu_flags()
    programs.run(main)
