"""Which of the networks in a file is meant, and how its parameters are called there."""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from sp_jax.weights.libraries import plain_name

Shapes = Mapping[str, tuple[int, ...]]


class Network(NamedTuple):
    """A backbone among the arrays of a file.

    Attributes:
        prefix: what its names begin with, such as "module.encoder_q."; it may be empty.
        rename: from the rest of a name to torchvision's (ResNet) or timm's (ViT).
    """

    prefix: str
    rename: Callable[[str], str]


# A parameter that a network has once: a ResNet of torchvision or timm, a ViT of timm, and
# the two of transformers.
_RESNET, _VIT = "layer1.0.conv1.weight", "patch_embed.proj.weight"
_HUGGING_FACE = (
    "embedder.embedder.convolution.weight",
    "embeddings.patch_embeddings.projection.weight",
)
_NUMBERED = re.compile(r"((?:.*\.)?)(\d+)\.0\.conv1\.weight$")  # in a Sequential

# Which of several networks their authors evaluate: the one that is taken, and what each
# other one must be. A part of a name ends at a dot or, written "-" here, at "_".
_EVALUATED = (
    (r"\bteacher\b", r"\bstudent\b"),  # DINO, iBOT
    (r"\.target-encoder\.", r"\.encoder\."),  # MSN
    (r"\b(q|query|online|base)\b", r"\b(k|key|target|momentum)\b"),  # MoCo, v3; BYOL
    # lightly, solo-learn, mmselfsup
    (r"\.backbone\.", r"\b(momentum|teacher|student|q|query|k|key|online|target)\b"),
    (r"\.encoder\.", r"\bmomentum\b"),  # solo-learn, at first
    (r"^\.state-dict-ema\.", r"^\.state-dict\."),  # timm loads it by default
)

# Names that take part in the features of a network, and are no head on it.
INNER = re.compile(
    r"(?!.*mask_token)((conv1|bn1|layer\d+|blocks|embeddings|embedder|encoder)\.|"
    r"patch_embed|pos_embed|norm|\w+_tokens?\b)"
)


def find_network(shapes: Shapes, wanted: str | None = None) -> Network:
    """Where a backbone is among the arrays of a file.

    Args:
        shapes: of all arrays, by name.
        wanted: which of several networks: how its names begin, or a part of that between
            dots. By default the one that its authors evaluate.

    Raises:
        ValueError: there is no backbone, or it is not clear which one is meant.
    """
    found = {}
    for name in shapes:
        for first in (_RESNET, _VIT, *_HUGGING_FACE):
            if name == first or name.endswith(f".{first}"):
                found[name.removesuffix(first)] = first
        match = _NUMBERED.match(name)
        if match and {f"{match[1]}0.weight", f"{match[1]}1.weight"} <= shapes.keys():
            found.setdefault(match[1], "")
    if not found:
        such = (
            f"; it has {min(shapes)}, for example" if shapes else "; it holds no arrays"
        )
        raise ValueError(
            "it has no ResNet of torchvision, timm or transformers, and no ViT of timm or "
            f"transformers{such}."
        )
    prefix = _choose(sorted(found), shapes, wanted)
    if found[prefix] in _HUGGING_FACE:
        return Network(prefix, plain_name)
    if found[prefix] == _VIT:
        return Network(prefix, str)
    if found[prefix] == _RESNET:
        return Network(prefix, _resnet_name)
    return Network(prefix, _numbered_names(prefix, shapes))


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
        alike = all(
            _inner(p, shapes) == _inner(prefixes[0], shapes) for p in prefixes[1:]
        )
        labels = {p: f".{p}".replace("_", "-") for p in prefixes}
        for taken, rest in _EVALUATED:
            fitting = [p for p in prefixes if re.search(taken, labels[p])]
            others = [labels[p] for p in prefixes if p not in fitting]
            # A student of another form than its teacher is what its authors want.
            if alike and len(fitting) == 1 and all(re.search(rest, o) for o in others):
                return fitting[0]
    names = ", ".join(repr(p.removesuffix(".")) for p in prefixes)
    if wanted is not None:
        raise ValueError(f"there is no one network {wanted!r} in it; it has {names}.")
    raise ValueError(
        f"it holds several networks, {names}: name the one that you mean. python -m "
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


def _resnet_name(name: str) -> str:
    """torchvision's name; the ResNets for CIFAR (of lightly, too) have a "shortcut"."""
    return re.sub(r"^(layer\d+\.\d+)\.shortcut\.", r"\1.downsample.", name)


def _numbered_names(prefix: str, shapes: Shapes) -> Callable[[str], str]:
    """Names of a `Sequential` of a ResNet's children, of which 0 and 1 are conv1 and bn1.

    What has no parameters is counted, too: the stages begin at 4 behind a ReLU and a
    pooling, at 3 behind a ReLU. At 2 there is no ReLU, as in lightly's Sequential of its own
    ResNets, and the features are others.
    """
    short = [name.removeprefix(prefix) for name in shapes if name.startswith(prefix)]
    numbers = {int(n) for n in (name.split(".")[0] for name in short) if n.isdecimal()}
    stages = sorted({int(m[2]) for m in map(_NUMBERED.match, short) if m and not m[1]})
    first = stages[0]
    gaps = stages[-1] - first + 1 != len(stages)
    if gaps or any(1 < n < stages[-1] and n not in stages for n in numbers):
        raise ValueError(
            f"its layers are numbered, and those with parameters ({sorted(numbers)}) are "
            "not the children of a ResNet in their order."
        )
    pooled = shapes[f"{prefix}0.weight"][-1:] == (7,)
    if first != 4 and (pooled or first != 3):
        raise ValueError(
            f"its layers are numbered, and the stages begin at {first}: between them and "
            f"the first two layers ours has a ReLU{' and a pooling' if pooled else ''}."
        )
    known = {"0": "conv1", "1": "bn1"}
    known |= {str(number): f"layer{i + 1}" for i, number in enumerate(stages)}

    def rename(name: str) -> str:
        first, dot, rest = name.partition(".")
        return _resnet_name(known.get(first, first) + dot + rest)

    return rename
