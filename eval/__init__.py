"""Evaluators on frozen features.

An evaluator is called as `(extractor, step) -> {name: number}`. A module of this package
makes one with `create(**options)`, which opens the image stores and checks the options, so
mistakes show before training starts. It knows its `protocol`, one line to print beside the
number, and its `stores`, the images that it reads (`eval.task.Evaluator`).

Example:
  >>> import eval as evals
  >>> knn = evals.get("knn")
  >>> options = dict(dataset="emoji", train_split="probe_train",
  ...                test_split="probe_test", target="subcategory")
  >>> evaluate = knn.create(**options)
  >>> evaluate(Extractor(backbone), step)  # doctest: +SKIP
  {'accuracy': 0.31}
"""

import importlib
import sys
import types

from sp_jax.errors import UserError
from sp_jax.siblings import FOLDER

sys.path.insert(0, FOLDER)  # the user may have a folder input_pipeline/ or configs/

NAMES = (
    "cka",
    "few_labels",
    "finetune",
    "invariance",
    "knn",
    "linear_probe",
    "metrics",
    "retrieval",
)


def get(type: str) -> types.ModuleType:
    """The evaluator module of this name.

    Raises:
      UserError: there is no such evaluator.
    """
    if type not in NAMES:
        raise UserError(
            f"Unknown evaluator {type!r}: choose one of {', '.join(NAMES)}."
        )
    # Imported here, not above: `python -m eval.knn` would import the module twice.
    return importlib.import_module(f"eval.{type}")
