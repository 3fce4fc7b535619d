"""Self-supervised methods, one file each. `get("simclr")` returns the module.

A method's module has `create(backbone, run, **options) -> Method`; `views(size)`, the
default augmentations of its views (of the local crops too, where it has the argument
`local_crops`), as they differ from SimCLR's; `OPTIMIZER`, the default recipe; `RULES`, which
parameter decays; and, if its authors have one, `PROBE`, how they train their linear probe.
One outside the project has the same, and is named by its import path.
"""

from types import ModuleType

from sp_jax import registry
from sp_jax.methods.base import Batch as Batch
from sp_jax.methods.base import Method as Method
from sp_jax.methods.base import Output as Output
from sp_jax.methods.base import RunSize as RunSize

NEEDED = ("create", "views", "OPTIMIZER", "RULES")
NAMES = tuple(
    "barlow_twins byol deepcluster dino moco_v2 moco_v3 nnclr pirl simclr simsiam supcon "
    "swav vicreg".split()
)


def get(name: str) -> ModuleType:
    """The module of a method, by its name or by the import path of a user's own.

    Raises:
        UserError: there is no such method, or its module cannot be used.

    Example:
        >>> get("simclr").OPTIMIZER["name"]
        'lars_inside'
    """
    module = registry.find("method", name, __name__, NAMES)
    registry.check_contract("method", name, module, NEEDED)
    return module
