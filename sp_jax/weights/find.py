"""Find the network in a file, and the names of its parameters there."""

import re
from types import ModuleType
from typing import NamedTuple

from sp_jax.weights import resnet
from sp_jax.weights.families import FAMILIES
from sp_jax.weights.names import Shapes, Table, name_here


class Network(NamedTuple):
    """A backbone among the arrays of a file.

    Attributes:
        prefix: what its names begin with, such as "module.encoder_q."; it may be empty.
        family: the file of its kind.
        table: the names of its library.
    """

    prefix: str
    family: ModuleType
    table: Table

    def rename(self, name: str) -> str:
        """The name in torchvision or timm of a parameter, given without its prefix."""
        return name_here(name, self.table)


# Which of several networks the authors evaluate: a pattern for the one that is taken, and one
# that each other network must match. Here "-" stands for "_" in a name.
_EVALUATED = (
    (r"\bteacher\b", r"\bstudent\b"),  # DINO, iBOT
    (r"\.target-encoder\.", r"\.encoder\."),  # MSN
    (r"\b(q|query|online|base)\b", r"\b(k|key|target|momentum)\b"),  # MoCo, v3; BYOL
    # lightly, solo-learn, mmselfsup
    (r"\.backbone\.", r"\b(momentum|teacher|student|q|query|k|key|online|target)\b"),
    (r"\.encoder\.", r"\bmomentum\b"),  # solo-learn, at first
    (r"^\.state-dict-ema\.", r"^\.state-dict\."),  # timm loads it by default
)

# Names of parameters that a network's features depend on, unlike those of a head.
INNER = re.compile(
    r"(?!.*mask_token)((conv1|bn1|layer\d+|blocks|embeddings|embedder|encoder)\.|"
    r"patch_embed|pos_embed|norm|\w+_tokens?\b)"
)


def find_network(shapes: Shapes, wanted: str | None = None) -> Network:
    """Find the backbone among the arrays of a file, by their shapes.

    `wanted` chooses one of several networks: the prefix of its names, or a part of the prefix
    between dots. By default it is the one that the authors evaluate.

    Raises:
        ValueError: there is no backbone, or it is not clear which one is meant.
    """
    landmarks = [
        (first, (file, table))
        for file in FAMILIES
        for first, table in file.LANDMARKS.items()
    ]
    found = {}
    for name in shapes:
        for first, known in landmarks:
            if f".{name}".endswith(f".{first}"):
                found[name.removesuffix(first)] = known
        match = resnet.NUMBERED.match(name)
        if match and {f"{match[1]}0.weight", f"{match[1]}1.weight"} <= shapes.keys():
            found.setdefault(match[1], (resnet, None))
    if not found:
        such = f"it has {min(shapes)}, for example" if shapes else "it holds no arrays"
        raise ValueError(
            "it has no ResNet of torchvision, timm or transformers, and no ViT of timm or "
            f"transformers; {such}."
        )
    prefix = _choose(sorted(found), shapes, wanted)
    file, table = found[prefix]
    if table is None:
        table = resnet.numbered_names(prefix, shapes)
    return Network(prefix, file, table)


def _choose(prefixes: list[str], shapes: Shapes, wanted: str | None) -> str:
    if wanted is not None:
        wanted = wanted.strip(".")
        exact = [p for p in prefixes if p.removesuffix(".") == wanted]
        fitting = exact or [p for p in prefixes if f".{wanted}." in f".{p}"]
        if len(fitting) == 1:
            return fitting[0]
    elif len(prefixes) == 1:
        return prefixes[0]
    else:
        first, *rest = (_inner(prefix, shapes) for prefix in prefixes)
        alike = all(inner == first for inner in rest)
        labels = {p: f".{p}".replace("_", "-") for p in prefixes}
        for taken, passed in _EVALUATED:
            fitting = [p for p in prefixes if re.search(taken, labels[p])]
            others = [labels[p] for p in prefixes if p not in fitting]
            known = all(re.search(passed, label) for label in others)
            # If student and teacher differ in form, the authors want the student.
            if alike and len(fitting) == 1 and known:
                return fitting[0]
    names = ", ".join(repr(p.removesuffix(".")) for p in prefixes)
    if wanted is not None:
        raise ValueError(f"it has no single network {wanted!r}; it has {names}.")
    raise ValueError(
        f"it holds several networks, {names}: name the one that you want. python -m "
        f"sp_jax.export --checkpoint=FILE --network={prefixes[-1].removesuffix('.')} "
        "--out=ONE.safetensors writes it alone."
    )


def _inner(prefix: str, shapes: Shapes) -> Shapes:
    return {
        name.removeprefix(prefix): shape
        for name, shape in shapes.items()
        if name.startswith(prefix)
        and INNER.match(name, len(prefix))
        and not name.endswith("num_batches_tracked")  # an average may lack it
    }
