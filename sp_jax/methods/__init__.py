"""Self-supervised methods, one file each. `get("simclr")` returns the module.

A method's module has `create(backbone, run, **options) -> Method`; `views(size)`, the
default augmentations of its views (of the local crops too, where it has the argument
`local_crops`); `OPTIMIZER`, the default recipe; and `RULES`, which parameter decays.
"""

import importlib
from types import ModuleType

from sp_jax.methods.base import Batch as Batch
from sp_jax.methods.base import Method as Method
from sp_jax.methods.base import Output as Output
from sp_jax.methods.base import RunSize as RunSize

NAMES = (
    "barlow_twins",
    "byol",
    "deepcluster",
    "dino",
    "moco_v2",
    "moco_v3",
    "nnclr",
    "pirl",
    "simclr",
    "simsiam",
    "supcon",
    "swav",
    "vicreg",
)


def get(name: str) -> ModuleType:
    """Return the module of a method.

    Raises:
        ValueError: the name is unknown.

    Example:
        >>> get("simclr").OPTIMIZER["name"]
        'lars_inside'
    """
    if name not in NAMES:
        raise ValueError(
            f"There is no method {name!r}; choose one of: {', '.join(NAMES)}."
        )
    return importlib.import_module(f"sp_jax.methods.{name}")
