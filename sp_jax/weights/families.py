"""The kinds of networks whose weights are read and written, one file each.

Such a file has the functions of `resnet.py`, and `LANDMARKS`: parameters that a network has
once, each with the names of the library that calls it so. A backbone names its file
(`Facts.weights`).
"""

import importlib
from types import ModuleType

import flax.linen as nn

from sp_jax.errors import UserError
from sp_jax.weights import resnet, vit

FAMILIES = (resnet, vit)  # that are recognised in a file


def family(module: nn.Module) -> ModuleType:
    """The file of a backbone's kind; UserError if no library has such a network."""
    if module.weights is None:
        raise UserError(
            f"No other library is known to have a {module.describe()}, so its weights are "
            "read and written in checkpoints only."
        )
    return importlib.import_module(module.weights)
