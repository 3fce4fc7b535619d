r"""Invariance: how far controlled corruptions of an image move its features.

The paper (https://arxiv.org/abs/2510.08722) claims that semantic pairs make
representations robust to occlusion, background, pattern or texture, and illumination, and
measures none of them. Here test images are corrupted in these four families, in several
kinds and levels each (docs/evaluation.md says what a level is), and two things are measured:

* `cosine`: (c - d) / (1 - d), where c is the cosine between the features of an image and
  of the same image changed, in the mean, and d the mean cosine between the features of
  different unchanged images. 1: the features do not move; 0: they are as far away as
  those of any other image. Without d a backbone whose features all look alike would win.
* `accuracy`: of a linear probe (`eval.linear_probe`) on the corrupted images. It is fitted,
  and chosen, on unchanged training images, so a corruption is new to it.

  python -m eval.invariance --checkpoint=RUN --dataset=emoji \
    --train_split=probe_train --test_split=probe_test --target=category
"""

import dataclasses
import sys
from typing import Any

import numpy as np

from eval import cli, corruptions, linear_probe, probes
from eval.evaluator import Evaluator, Number
from eval.options import Seed, Several, read_options
from eval.task import Task, TaskOptions, open_task
from sp_jax import progress
from sp_jax.errors import UserError
from sp_jax.features import Extractor, normalize

MEASURES = ("cosine", "accuracy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(TaskOptions):
    """The options, for a config or the command line.

    Attributes:
      images: test images that are corrupted, at most; drawn at random if there are more.
      seed: of the corruptions, of the choice of images and of the probe.
    """

    images: Several = 2048
    seed: Seed = 0


def create(**options: Any) -> Evaluator:
    """An evaluator that returns, for each family, both measures.

    It returns
      "cosine": the mean of that of the families,
      "FAMILY/cosine", "FAMILY/accuracy": means over the family's kinds and levels above 0,
      "FAMILY/KIND/cosine_LEVEL", "FAMILY/KIND/accuracy_LEVEL": each of them,
      "clean_accuracy": of the probe on the unchanged images,
      "chance": the accuracy of the most frequent training class,
      "different_cosine": d, see the top of this file.
    """
    settings, task, chosen = open_images(options)
    families = corruptions.families_of(corruptions.has_alpha(task.test))

    def evaluate(extractor: Extractor, step: int) -> dict[str, float]:
        train, test = task.extract(extractor)
        defaults, scalings = linear_probe.Options, ("standardized",)
        probe, _ = linear_probe.fit_sweep(
            train, task, defaults, settings.seed, scalings
        )

        def accuracy(features: np.ndarray) -> float:
            return float(probes.score(probe, features, labels)[0][0])

        clean, labels = normalize(test[chosen]), task.test_labels[chosen]
        different = mean_cosine(clean)
        rows = task.test_rows[chosen]
        scene = corruptions.make_scene(task.test, rows, settings.seed)
        every: dict[str, float] = {}
        means: dict[str, float] = {}
        changes = [
            (family, name, level)
            for family, kinds in families.items()
            for name, kind in kinds.items()
            for level in kind.levels[1:]
        ]
        cosines: dict[str, list[float]] = {family: [] for family in families}
        accuracies: dict[str, list[float]] = {family: [] for family in families}
        for family, name, level in progress.track(changes, "invariance", "changes"):
            changed = corruptions.apply(family, name, scene, level, settings.seed)
            features = extractor.map(changed)
            cosine = relative(clean, normalize(features), different)
            cosines[family].append(cosine)
            accuracies[family].append(accuracy(features))
            every[f"{family}/{name}/cosine_{level:g}"] = cosine
            every[f"{family}/{name}/accuracy_{level:g}"] = accuracies[family][-1]
        for family in families:
            means[f"{family}/cosine"] = float(np.mean(cosines[family]))
            means[f"{family}/accuracy"] = float(np.mean(accuracies[family]))
        return {
            "cosine": float(np.mean([means[f"{name}/cosine"] for name in families])),
            "clean_accuracy": accuracy(test[chosen]),
            "chance": chance,
            "different_cosine": different,
            **means,
            **every,
        }

    chance = task.chance(chosen)
    cosines = ["cosine", *(f"{name}/cosine" for name in families)]
    accuracies = ["clean_accuracy", *(f"{name}/accuracy" for name in families)]
    headline = (
        *(Number(name) for name in cosines),
        *(Number(name, percent=True, chance=chance) for name in accuracies),
    )
    text = "; ".join(f"{name} ({', '.join(kinds)})" for name, kinds in families.items())
    left_out = [
        f"{family}/{name}"
        for family, kinds in corruptions.FAMILIES.items()
        for name in kinds
        if name not in families.get(family, ())
    ]
    if left_out:
        text += f"; without {', '.join(left_out)}: no alpha"
    protocol = (
        f"invariance of {len(chosen):,} test images ({settings.image_size} px, "
        f"{settings.resize}) to {text}; cosine relative to different images, accuracy "
        f"of a linear probe fitted on unchanged images (seed {settings.seed}), {task.text}"
    )
    return Evaluator(protocol, evaluate, headline, task.stores)


def open_images(options: dict[str, Any]) -> tuple[Options, Task, np.ndarray]:
    """Settings, task, and the test rows to change, int64 [n]; UserError if they do not fit."""
    settings = read_options(Options, options)
    task = open_task(settings)
    count = len(task.test_rows)
    if count < 2:
        raise UserError(
            f"{settings.dataset} {task.test.split} has only one image with a "
            f"{settings.target}, but corruptions are compared with other images."
        )
    corruptions.check_images(task.test)
    # Raw bits: NumPy promises the same ones in every version.
    order = np.argsort(np.random.PCG64(settings.seed).random_raw(count), kind="stable")
    return settings, task, np.sort(order[: settings.images])


def mean_cosine(unit: np.ndarray) -> float:
    """The mean cosine over all pairs of different rows; unit [n, D] has length 1."""
    # The sum over all ordered pairs is the squared length of the sum of the rows.
    total, count = unit.sum(0, dtype=np.float64), len(unit)
    own = np.sum(unit.astype(np.float64) ** 2)
    return float((total @ total - own) / (count * (count - 1)))


def relative(clean: np.ndarray, changed: np.ndarray, different: float) -> float:
    """The mean cosine of rows of length 1, where 0 is `different` and 1 is the same.

    0 where all images have the same features: they tell nothing.
    """
    if 1 - different < 1e-6:
        return 0.0
    cosine = np.sum(clean.astype(np.float64) * changed, axis=1).mean()
    return float((cosine - different) / (1 - different))


if __name__ == "__main__":
    cli.main("invariance", sys.modules[__name__])
