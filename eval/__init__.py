"""Evaluators on frozen features.

An evaluator is called as `(extractor, step) -> {name: number}`. A module of this package, or
any module by its import path, makes one with `create(**options)`, which opens the image stores
and checks the options: a `UserError` shows before training starts. Its `Options`, a dataclass,
says which there are. An evaluator knows its `protocol`, one line to print beside the number,
which numbers are its `headline`, and its `stores` (`eval.evaluator.Evaluator`).

Example:
  >>> import eval as evals
  >>> options = dict(dataset="emoji", train_split="probe_train",
  ...                test_split="probe_test", target="subcategory")
  >>> evaluate = evals.make("knn", options)
  >>> evaluate(Extractor(backbone), step)  # doctest: +SKIP
  {'accuracy': 0.31}
"""

import types
from collections.abc import Mapping
from typing import Any

from sp_jax import siblings as siblings  # the user may have a folder configs/

# isort: split
from eval.evaluator import Evaluator
from sp_jax.errors import UserError
from sp_jax.registry import find

NAMES = (
    *("cka", "few_labels", "finetune", "invariance"),
    *("knn", "linear_probe", "metrics", "retrieval"),
)


def get(type: str) -> types.ModuleType:
    """The module of an evaluator, by its name or an import path such as "mypackage.myeval".

    Raises:
      UserError: there is no such evaluator, or the module is none.
    """
    # Imported here, not above: `python -m eval.knn` would import the module twice.
    module = find("evaluator", type, "eval", NAMES)
    for name in ("Options", "create"):
        if not hasattr(module, name):
            raise UserError(
                f"{type} is no evaluator: it has no {name}. It needs a dataclass Options and "
                "create(**options), which returns an eval.evaluator.Evaluator."
            )
    return module


def make(type: str | types.ModuleType, options: Mapping[str, Any]) -> Evaluator:
    """Make an evaluator that knows its name and all of its options.

    Args:
      type: its name, its import path, or its module.
      options: see its `Options`.

    Raises:
      UserError: there is no such evaluator, or the options do not fit.
    """
    # Imported here: what reads results needs no jax.
    from eval.options import defaults_of

    module = get(type) if isinstance(type, str) else type
    # That of a module that runs as a program is __main__.
    name = module.__spec__.name if module.__spec__ else module.__name__
    kind = name.removeprefix("eval.")
    evaluate: Evaluator = module.create(**options)
    return evaluate._replace(kind=kind, options=defaults_of(module.Options) | options)


def program_of(type: str) -> str:
    """The module of an evaluator, as `python -m` needs it to run the evaluator alone."""
    return type if "." in type else f"eval.{type}"
