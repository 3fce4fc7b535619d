r"""Linear probe: a linear classifier on frozen features, in named protocols.

* `sweep`: SGD on cached features; scaling of the features, learning rate and weight decay
  are chosen on a part of the training split (`eval.probes`). All combinations are fitted
  at once.
* `lbfgs`: logistic regression to its optimum (`eval.probe_lbfgs`); the weight decay is
  chosen on a part of the training split.
* `paper`: SGD on random crops and flips, by the recipe of the method's own evaluation
  (`eval.probe_paper`); nothing is chosen.

In the first two the probe is then fitted on the whole of the training split. The test split
is scored once, for each seed. It is checked that no bit of the backbone changes.

  python -m eval.linear_probe --checkpoint=RUN --dataset=emoji \
    --train_split=probe_train --test_split=probe_test --target=subcategory
"""

import contextlib
import dataclasses
import decimal
import functools
import sys
from typing import Any

import numpy as np

from eval import cli
from eval import options as kinds
from eval.evaluator import Evaluator
from eval.probe_lbfgs import fit_lbfgs
from eval.probe_paper import find_recipe, fit_paper, recipes
from eval.probes import SCALINGS, Choice, Probes, fit_chosen, hold_out, score
from eval.supervised import backbone_of
from eval.task import Task, TaskOptions, open_task
from sp_jax import progress
from sp_jax.backbone import Backbone
from sp_jax.errors import UserError
from sp_jax.features import Extractor
from sp_jax.tokens import check_tokens, describe_tokens

Result = dict[str, float]
# Of the sweep; a recipe has its own.
_EPOCHS, _BATCH_SIZE = 100, 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(TaskOptions):
    """The options, for a config or the command line.

    Attributes:
      protocol: "sweep", "lbfgs" or "paper".
      tokens: of a ViT: "cls", "cls4" or "mean" (`sp_jax.tokens`).
      recipe: method whose recipe is used, such as "simclr" (paper); by default the run's.
      scalings: of the features, to try: "standardized", "raw" (sweep; lbfgs standardises).
      learning_rates: the peak learning rates to try (sweep).
      weight_decays: the L2 penalties to try, each with each learning rate.
      epochs: passes over the images fitted on; 0: 100 (sweep), the recipe's (paper).
      batch_size: images per step, at most all; 0: 256 (sweep), the recipe's (paper).
      validation: share of the training split to choose on, between 0 and 1.
      seed: of the validation part and of the order of the images.
      seeds: number of seeds, counted from `seed`; the results are means.
    """

    protocol: str = "sweep"
    tokens: str = "cls"
    recipe: str | None = None
    scalings: tuple[str, ...] = SCALINGS
    learning_rates: tuple[kinds.Positive, ...] = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    weight_decays: tuple[kinds.NotNegative, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    epochs: kinds.CountOrZero = 0
    batch_size: kinds.CountOrZero = 0
    validation: kinds.ProperFraction = 0.2
    seed: kinds.Seed = 0
    seeds: kinds.Count = 1


def create(**options: Any) -> Evaluator:
    """An evaluator that returns the test accuracy and the chosen settings.

    It returns "accuracy" on the test split in [0, 1], the mean over the seeds; with several
    seeds "accuracy_std", the sample standard deviation; and of the first seed:

    * `sweep`: "learning_rate", "weight_decay", "standardized" (0 or 1) that were chosen, and
      "val_accuracy" of the choice, the mean over the seeds;
    * `lbfgs`: "weight_decay", "val_accuracy", and "converged", the share of the seeds' final
      fits that did;
    * `paper`: "learning_rate" (the peak), "weight_decay", "epochs", "batch_size".

    Raises:
      UserError: when called: the options do not fit the backbone, or all fits diverged.
    """
    settings = kinds.read_options(Options, options)
    _check(settings)
    task = open_task(settings)
    if settings.protocol != "paper" and len(np.unique(task.groups)) < 2:
        raise UserError(
            f"{settings.dataset} {task.train.split} has a single group of images, "
            "so none can be held out for the choice: use a larger training split."
        )
    run = _PROTOCOLS[settings.protocol]

    def evaluate(extractor: Extractor, step: int) -> Result:
        extractor = extractor.of_tokens(settings.tokens)
        seeds = range(settings.seed, settings.seed + settings.seeds)
        # A plain function of images has nothing to hash.
        of_weights = isinstance(extractor.backbone, Backbone)
        with extractor.backbone.untouched() if of_weights else contextlib.nullcontext():
            results = [
                run(extractor, task, settings, seed)
                for seed in progress.track(seeds, "linear probe", "seeds")
            ]
        found = dict(results[0])
        for name in ("accuracy", "val_accuracy", "converged"):
            if name in found:
                found[name] = float(np.mean([result[name] for result in results]))
        if settings.seeds > 1:
            accuracies = [result["accuracy"] for result in results]
            found["accuracy_std"] = float(np.std(accuracies, ddof=1))
        return found

    headline = task.accuracies("accuracy")
    return Evaluator(_describe(settings, task), evaluate, headline, task.stores)


def fit_sweep(
    train: np.ndarray, task: Task, settings: Any, seed: int, scalings: tuple[str, ...]
) -> tuple[Probes, Choice]:
    """The best probe on features [n, D] of the training rows; settings as in `Options`."""
    return fit_chosen(
        train,
        task.train_labels,
        hold_out(task.groups, settings.validation, seed),
        *(settings.learning_rates, settings.weight_decays, scalings),
        num_classes=task.num_classes,
        epochs=settings.epochs or _EPOCHS,
        batch_size=settings.batch_size or _BATCH_SIZE,
        seed=seed,
    )


def _sweep(extractor: Extractor, task: Task, settings: Options, seed: int) -> Result:
    train, test = task.extract(extractor)
    probe, choice = fit_sweep(train, task, settings, seed, settings.scalings)
    accuracy, _ = score(probe, test, task.test_labels)
    return {
        "accuracy": float(accuracy[0]),
        "val_accuracy": choice.val_accuracy,
        "learning_rate": choice.learning_rate,
        "weight_decay": choice.weight_decay,
        "standardized": float(choice.scaling == "standardized"),
    }


def _lbfgs(extractor: Extractor, task: Task, settings: Options, seed: int) -> Result:
    train, test = task.extract(extractor)
    held_out = hold_out(task.groups, settings.validation, seed)
    labels, decays = task.train_labels, settings.weight_decays
    fit = functools.partial(fit_lbfgs, num_classes=task.num_classes)
    probes, _ = fit(train[~held_out], labels[~held_out], decays)
    accuracy, loss = score(probes, train[held_out], labels[held_out])
    best = int(np.lexsort((loss, -accuracy))[0])
    probe, converged = fit(train, labels, [decays[best]])
    return {
        "accuracy": float(score(probe, test, task.test_labels)[0][0]),
        "val_accuracy": float(accuracy[best]),
        "weight_decay": decays[best],
        "converged": float(converged[0]),
    }


def _paper(extractor: Extractor, task: Task, settings: Options, seed: int) -> Result:
    backbone = backbone_of(extractor, "protocol=paper")
    recipe = find_recipe(settings.recipe, backbone)
    recipe = recipe.resized(settings.epochs, settings.batch_size)
    accuracy, recipe = fit_paper(extractor, task, recipe, seed)
    return {
        "accuracy": accuracy,
        "learning_rate": recipe.peak,
        "weight_decay": recipe.weight_decay,
        "epochs": float(recipe.epochs),
        "batch_size": float(recipe.batch_size),
    }


_PROTOCOLS = {"sweep": _sweep, "lbfgs": _lbfgs, "paper": _paper}


def _describe(settings: Options, task: Task) -> str:
    unit = "groups" if "group" in task.train.attributes else "images"
    rates, decays = len(settings.learning_rates), len(settings.weight_decays)
    seeds = f"seed {settings.seed}"
    if settings.seeds > 1:
        seeds = f"{settings.seeds} seeds from {settings.seed}"
    percent = (100 * decimal.Decimal(repr(settings.validation))).normalize()
    choice = f"chosen on {percent:f}% of the training {unit} ({seeds})"
    choice += kinds.changed(settings, "weight_decays")
    if settings.protocol == "paper":
        own = [(settings.epochs, "epochs"), (settings.batch_size, "images a batch")]
        changes = "".join(f", {value} {what}" for value, what in own if value)
        recipe = settings.recipe or "the run's method"
        how = f"SGD on crops and flips as {recipe} does{changes} ({seeds})"
    elif settings.protocol == "lbfgs":
        how = f"L-BFGS to the optimum, {decays} weight decays {choice}"
    else:
        how = (
            f"SGD {settings.epochs or _EPOCHS} epochs batch "
            f"{settings.batch_size or _BATCH_SIZE}, {'/'.join(settings.scalings)} "
            f"features, {rates}x{decays} learning rates x weight decays {choice}"
            f"{kinds.changed(settings, 'learning_rates')}"
        )
    return f"linear probe, {how}{describe_tokens(settings.tokens)}, {task.text}"


# The options of each protocol that another one does not use.
_USED = {
    "sweep": {
        *("scalings", "learning_rates", "weight_decays"),
        *("epochs", "batch_size", "validation"),
    },
    "lbfgs": {"weight_decays", "validation"},
    "paper": {"recipe", "epochs", "batch_size"},
}


def _check(settings: Options) -> None:
    check_tokens(settings.tokens)
    named = [("protocol", settings.protocol, _PROTOCOLS)]
    named += [("scaling", scaling, SCALINGS) for scaling in settings.scalings]
    if settings.recipe is not None:
        named.append(("recipe", settings.recipe, recipes()))
    for what, name, known in named:
        if name not in known:
            there = ", ".join(known)
            raise UserError(f"There is no {what} {name!r}: choose one of {there}.")
    defaults, used = kinds.defaults_of(Options), _USED[settings.protocol]
    for name in sorted(set().union(*_USED.values()) - used):
        if getattr(settings, name) != defaults[name]:
            raise UserError(
                f"{name} has no effect with protocol={settings.protocol}, which uses "
                f"{', '.join(sorted(used))}: leave it out."
            )
    if settings.protocol == "lbfgs" and min(settings.weight_decays) == 0:
        raise UserError(
            "lbfgs needs weight_decays above 0: without one it does not converge."
        )


if __name__ == "__main__":
    cli.main("linear_probe", sys.modules[__name__])
