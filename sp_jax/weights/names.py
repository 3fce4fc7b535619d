"""Names of parameters in other libraries, as tables of replacements."""

import re
from collections.abc import Callable, Mapping

import numpy as np

State = dict[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]
# Parts of torchvision's (ResNet) or timm's (ViT) names, and their replacements in another
# library, applied one after the other. A name begins with "^".
Table = tuple[tuple[str, str], ...]

QKV = ("query", "key", "value")  # layers of their own in transformers
MOST = 1000  # blocks: no network has more


def name_there(name: str, table: Table) -> str:
    """The name that a library has for a parameter.

    >>> name_there("layer2.0.bn1.bias", (("^layer2.", "^res3."), (".bn1.", ".norm1.")))
    'res3.0.norm1.bias'
    """
    name = f"^{name}"
    for ours, theirs in table:
        name = name.replace(ours, theirs)
    return name.removeprefix("^")


def name_here(name: str, table: Table) -> str:
    """The name that a library's parameter has here.

    >>> name_here("blocks.3.attn.key.bias", ())
    'blocks.3.attn.qkv.bias'
    """
    name = f"^{name}"
    for ours, theirs in table:
        name = name.replace(theirs, ours)
    for part in QKV:
        name = name.replace(f".attn.{part}.", ".attn.qkv.")
    return name.removeprefix("^")


def gather(state: Mapping[str, np.ndarray], name_here: Callable[[str], str]) -> State:
    """Rename arrays, and join queries, keys and values, which get one name.

    Raises:
        ValueError: arrays that get one name do not fit each other.
    """
    parts: dict[str, list] = {}
    for name, value in state.items():
        place = next((i for i, part in enumerate(QKV) if f".{part}." in name), 0)
        parts.setdefault(name_here(name), []).append((place, value))
    return {
        name: np.concatenate([value for _, value in sorted(found, key=lambda x: x[0])])
        if len(found) > 1
        else found[0][1]
        for name, found in parts.items()
    }


def shape_of(state: Mapping[str, np.ndarray], name: str, axes: int) -> tuple[int, ...]:
    """The shape of an array, which must have that many axes, none of length 0."""
    shape = state[name].shape
    if len(shape) != axes or 0 in shape:
        raise ValueError(f"no network has {name} of the shape {list(shape)}.")
    return shape


def count(state: Mapping[str, np.ndarray], pattern: str, first: int = 0) -> int:
    """How many numbers a pattern finds in the names; they must have no gaps."""
    found = filter(None, (re.match(pattern, name) for name in state))
    numbers = {match[1]: match[0] for match in found}
    for number in map(str, range(first, first + len(numbers))):
        if number not in numbers:
            most = max(numbers, key=lambda n: (len(n), n))
            raise ValueError(
                f"it has {numbers[most][:40]}*, but none with number {number}."
            )
    if len(numbers) > MOST:
        raise ValueError(f"no network has {len(numbers)} blocks.")
    return len(numbers)
