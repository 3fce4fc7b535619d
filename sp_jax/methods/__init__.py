"""Self-supervised methods, one file each. `get("simclr")` returns the module.

A method's module has `create(backbone, **options) -> Method`, `views(size)`, the default
augmentations of its views, and `OPTIMIZER`, the default recipe.
"""

from types import ModuleType

from sp_jax.methods import simclr
from sp_jax.methods.base import Method as Method
from sp_jax.methods.base import Output as Output

_METHODS = {"simclr": simclr}


def get(name: str) -> ModuleType:
    """Return the module of a method.

    Raises:
        ValueError: the name is unknown.

    Example:
        >>> get("simclr").OPTIMIZER["name"]
        'lars'
    """
    if name not in _METHODS:
        known = ", ".join(sorted(_METHODS))
        raise ValueError(f"There is no method {name!r}; choose one of: {known}.")
    return _METHODS[name]
