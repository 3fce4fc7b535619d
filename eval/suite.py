r"""Run all evaluations of some checkpoints on some datasets, and write one page of them.

  python -m eval.suite --checkpoint=RUN,RUN --datasets=emoji,folder:/data/cifar10 \
    --out=runs/suite

Each result is written to `eval/NAME.json` of its run at once, and is used again if it was
measured in the same way, with the same weights and on the same images: a suite that was stopped
continues. In --out:

* `suite.html`: tables with protocols, and pictures; it needs no network,
* `suite.csv`: every number,
* `DATASET/`: the pictures.

Checkpoints that differ only in their seed share a column, with mean and sample standard
deviation; if two columns share seeds, their difference is judged. The untrained network of each
is measured, too. A dataset needs the splits probe_train and probe_test, or train and test, val
or validation.

An evaluation that a network does not allow (its fine-tuning diverges, say) is named on the
page, and the others go on.
"""

import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags

import eval as evals
import sp_jax
from eval import cli, figures, invariance_figure, report
from eval.compare import tables
from eval.compare.runs import Run, read_run
from eval.compare.tables import Comparison
from eval.pages import write_page
from eval.plots.figure import save_figure
from eval.results import Result, evaluate_once
from input_pipeline.stores import ImageStore, find_splits, open_store
from sp_jax import cli as programs
from sp_jax import progress, xla_flags
from sp_jax.errors import UserError
from sp_jax.features import Extractor
from sp_jax.files import write_text
from sp_jax.train.identity import network_facts
from sp_jax.train.writer import read_metrics

EVALUATIONS = (
    *("knn", "linear_probe", "logistic", "few_labels", "finetune"),
    *("retrieval", "metrics", "invariance"),
)
_SPLITS = (
    ("probe_train", "probe_test"),
    *(("train", test) for test in ("test", "val", "validation")),
)
# Labels of the drawings besides their concepts, which no two images share
# within an artist.
_TARGETS = {"emoji": ("category", "subcategory")}
# Those of an evaluator of another name, or with options of their own.
_EVALUATORS = {"logistic": "linear_probe"}
_OPTIONS = {"linear_probe": {"seeds": 3}, "logistic": {"protocol": "lbfgs", "seeds": 3}}
_ALL = 100  # an evaluator's headlines
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
    """A network to evaluate, and its run."""

    run: Run
    extractor: Extractor


def _word(name: str) -> str:
    """A name in a form that file names can contain."""
    return re.sub(r"\W+", "_", name).strip("_")


def _folder_name(name: str) -> str:
    """A name of a folder, short enough, and another one for each name."""
    word = _word(name)
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return word if word == name and len(word) < 80 else f"{word[:80]}_{digest}"


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
        f"{dataset} has {'the splits ' + ', '.join(known) if known else 'no splits'}: it "
        "needs probe_train and probe_test, or train and one of test, val and validation."
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


def draw(
    checkpoints: Sequence[Checkpoint],
    entries: Sequence[Entry],
    comparison: Comparison,
    results: Sequence[tuple[Run, Result]],
    store: ImageStore,
    out: pathlib.Path,
) -> list[tuple[str, list[tuple[str, pathlib.Path]]]]:
    """Draw pictures of a dataset's test images: title, and a file for each label."""
    shown = []
    for entry in entries:
        made = invariance_figure.draw_columns(comparison, results, entry.name)
        if made is not None:
            save_figure(made, out / "invariance.png")
            shown.append(("The four invariances", [("", out / "invariance.png")]))
    target = _TARGETS.get(store.name, ("label",))[0]
    drawn: dict[str, list[tuple[str, pathlib.Path]]] = {}
    extractors = {one.run.path: one.extractor for one in checkpoints}
    for label, (first, *_) in comparison.newest.items():
        folder = out / _folder_name(label)
        for path in figures.draw(extractors[first.path], store, target, folder):
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
    run = checkpoint.run
    steps = run.step if run.total is None else f"{run.step} of {run.total}"
    return [str(run.path), run.kind, method, name, steps, config.get("seed", "?")]


def run(
    paths: Sequence[str],
    datasets: Sequence[str],
    kinds: Sequence[str],
    out: pathlib.Path,
) -> list[tuple[str, list[list[str]], Comparison]]:
    """Evaluate, draw and write the page.

    Args:
      paths: runs' folders, checkpoints or files of weights.
      datasets: names of image stores.
      kinds: of `EVALUATIONS`, or import paths of evaluators.
      out: folder for the page and its files.

    Returns:
      For each dataset its name, the table, and the comparison in it.

    Raises:
      UserError: a checkpoint, a dataset or an evaluation is missing or does not fit; or the
        page is written, but without some numbers that could not be measured.
    """
    unknown = [one for one in kinds if one not in EVALUATIONS and "." not in one]
    if unknown:
        raise UserError(
            f"There is no evaluation {unknown[0]!r}: choose from {', '.join(EVALUATIONS)}."
        )
    if not paths or not datasets:
        raise UserError("Give one --checkpoint or more, and one of --datasets or more.")
    prepared = [cli.images_of(path) for path in paths]
    if any(one != prepared[0] for one in prepared):
        raise UserError(
            "The runs prepared their images differently (image_size, resize): evaluate "
            "them separately."
        )
    # Mistakes in any dataset show before long work starts.
    plans = {dataset: plan(dataset, kinds, prepared[0]) for dataset in datasets}
    evaluators = {
        dataset: [evals.make(entry.module, entry.options) for entry in entries]
        for dataset, entries in plans.items()
    }
    checkpoints = [
        Checkpoint(read_run(path), Extractor(sp_jax.load(path))) for path in paths
    ]
    out.mkdir(parents=True, exist_ok=True)
    sections, shown, numbers, failed = [], [], [], []
    for dataset, entries in plans.items():
        pairs = list(zip(entries, evaluators[dataset], strict=True))
        count = len(checkpoints) * len(pairs)
        with progress.show(f"suite on {dataset}", count, "evaluations") as work:
            results, lost = _measure(checkpoints, pairs, work)
        failed += lost
        if not results:
            raise UserError(f"Nothing could be measured on {dataset}. {lost[0]}")
        comparison = tables.compare(
            [(run, [result]) for run, result in results], headlines=_ALL
        )
        folder = out / _folder_name(dataset)
        folder.mkdir(exist_ok=True)
        store = open_store(dataset, find_pair(dataset, prepared[0])[1], **prepared[0])
        drawn = draw(checkpoints, entries, comparison, results, store, folder)
        values = tables.page_values(comparison)
        section = {"name": dataset, "pictures": drawn, "failed": lost}
        sections.append(section | values)
        shown.append((dataset, values["table"], comparison))
        for run, result in results:
            about = [run.path, run.seed, result.content["step"], dataset, result.name]
            numbers += [[*about, *x] for x in result.content["result"].items()]
    header = ["checkpoint", "seed", "step", "dataset", "evaluation", "measure", "value"]
    write_text(out / "suite.csv", tables.format_csv([header, *numbers]))
    about = ["checkpoint", "pairs", "method", "backbone", "steps", "seed"]
    write_page(
        out / "suite.html",
        "suite.html",
        title="Evaluation of frozen features",
        checkpoints=[about, *map(_about, checkpoints)],
        datasets=sections,
        curves=_curves(checkpoints, comparison, out),
    )
    if failed:
        raise UserError(
            f"{out / 'suite.html'} is written, without what failed ({len(failed)}): "
            f"{failed[0]}"
        )
    return shown


def _measure(
    checkpoints: Sequence[Checkpoint],
    evaluations: Sequence[tuple[Entry, Any]],
    work: progress.Progress,
) -> tuple[list[tuple[Run, Result]], list[str]]:
    """The results of each checkpoint and evaluation, and of the untrained networks.

    An untrained network is measured once for each seed, whatever trained it. What cannot be
    measured is left out, and returned as sentences.
    """
    known: set[str] = set()
    results, failed = [], []
    for run, extractor in checkpoints:
        network = json.dumps([network_facts(run.facts), run.seed], sort_keys=True)
        first = network not in known and run.seed is not None
        known.add(network)
        # Made once: all evaluations share its features.
        floor = Extractor(sp_jax.load(run.path, untrained=True)) if first else None
        for entry, evaluate in evaluations:
            name = entry.name
            for one in filter(None, (extractor, floor)):
                bare, text = one is floor, f"{run.path}: {name}"
                text += " of the untrained network" if bare else ""
                try:
                    content = evaluate_once(
                        evaluate, one, run.path, name, untrained=bare
                    )
                except UserError as error:
                    failed.append(f"{text}: {error}")
                    progress.say(failed[-1])
                    continue
                results.append((run, Result(name, run.folder, content, bare)))
                number = content["headline"][0].name
                progress.say(f"{text}: {number} {content['result'][number]:.4f}")
            work.update()
    return results, failed


def _curves(
    checkpoints: Sequence[Checkpoint], comparison: Comparison, out: pathlib.Path
) -> list[pathlib.Path]:
    """The curves of the checkpoints that are in runs' folders."""
    lines = {
        one.run.path: read_metrics(one.run.folder)
        for one in checkpoints
        if (one.run.folder / "metrics.jsonl").is_file()
    }
    groups = {
        label: [lines[run.path] for run in runs if run.path in lines]
        for label, runs in comparison.newest.items()
    }
    if not lines:
        return []
    groups = {label: group for label, group in groups.items() if group}
    return report.draw_curves(groups, comparison, out / "curves")


def main() -> None:
    """Run the suite of the flags."""
    values = flags.FLAGS
    out = pathlib.Path(values.out)
    shown = run(values.checkpoint, values.datasets, values.evaluations, out)
    for dataset, table, comparison in shown:
        print(f"\n{dataset}")
        tables.print_comparison(table, comparison)
    print(f"\nThe page: {out / 'suite.html'}")


if __name__ == "__main__":
    flags.DEFINE_list("checkpoint", None, "Runs, checkpoints or files.", required=True)
    flags.DEFINE_list("datasets", ["emoji"], "Image stores.")
    flags.DEFINE_list(
        "evaluations",
        list(EVALUATIONS),
        "Evaluations to run; an import path names your own evaluator.",
    )
    flags.DEFINE_string("out", "runs/suite", "Folder of the page.")
    xla_flags.set_cpu_flags()
    programs.run(main)
