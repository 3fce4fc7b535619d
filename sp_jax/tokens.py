"""Which features of a vision transformer are evaluated.

* `cls`: the class token after the last block; of a ResNet, its pooled features.
* `cls4`: the class tokens after each of the last four blocks, one after the other, as DINO's
  linear evaluation takes them of ViT-S (https://arxiv.org/abs/2104.14294, appendix F.2).
* `mean` of the patches' tokens after the last block.

All are normalised by the network's last layer.
"""

from sp_jax.errors import UserError
from sp_jax.models.vit import TOKENS

_TEXT = {
    "cls4": "class tokens of the last 4 blocks",
    "mean": "mean of the patch tokens",
}


def check_tokens(tokens: str) -> None:
    """Raise UserError if there are no such tokens."""
    if tokens not in TOKENS:
        raise UserError(
            f"There are no tokens {tokens!r}: choose one of {', '.join(TOKENS)}."
        )


def describe_tokens(tokens: str) -> str:
    """The tokens as a part of a protocol, with a comma before; empty for "cls"."""
    return f", {_TEXT[tokens]}" if tokens != "cls" else ""
