"""Rules by parameter name: weight decay, adaptation and learning rate."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import jax
from jaxtyping import PyTree


class Rule(NamedTuple):
    """What the optimiser does to the parameters whose path matches.

    Attributes:
        match: a regular expression, searched in the path ("backbone/conv1/kernel").
        decay: apply weight decay.
        adapt: apply the trust ratio of LARS. LARC applies its own to every parameter.
        factor: multiplies the learning rate.
        constant: keep the learning rate at its peak, without warm-up and decay.
        frozen_epochs: no update before; nothing of the optimiser's state changes, as if
            the gradient were absent. `math.inf`: never trained.
    """

    match: str
    decay: bool = True
    adapt: bool = True
    factor: float = 1.0
    constant: bool = False
    frozen_epochs: float = 0.0


# Weight decay and trust ratio for what multiplies; not for biases and the scales of
# normalisations. The position and class tokens of a ViT decay in DINO's code, because
# it goes by the number of axes.
DECAY_KERNELS = (
    Rule(r"/(kernel|cls_token|pos_embed)$"),
    Rule(r"/(bias|scale)$", decay=False, adapt=False),
)
# Code that hands all its parameters to one optimiser. All decay, but no official LARS adapts
# biases and scales: a scale that begins at 0 would hardly move, as its learning rate is in
# proportion to its norm.
DECAY_ALL = (Rule(r"/(bias|scale)$", adapt=False), Rule(""))


def assign(rules: Sequence[Rule], params: PyTree) -> PyTree[int]:
    """The first rule that matches each parameter's path.

    Returns:
        A tree like params whose leaves are numbers of rules.

    Raises:
        ValueError: a parameter matches no rule.

    Example:
        >>> assign(DECAY_KERNELS, {"dense": {"kernel": 0.0, "bias": 0.0}})
        {'dense': {'bias': 1, 'kernel': 0}}
    """

    def number(path, _):
        name = "/".join(str(part.key) for part in path)
        for i, rule in enumerate(rules):
            if re.search(rule.match, name):
                return i
        raise ValueError(
            f"No optimiser rule matches the parameter {name!r}: name it kernel, bias or "
            "scale, or add a rule to the RULES of the method."
        )

    return jax.tree.map_with_path(number, params)
