"""Features that keep where something is: means over parts of a backbone's map."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from sp_jax.backbone import Backbone
from sp_jax.errors import UserError
from sp_jax.models import Facts


def with_layout(backbone: Backbone, parts: int) -> Backbone:
    """The same backbone, whose features are `parts * parts` means of its map, side by side.

    Of a ResNet it is the map before the last stage, whose features are the more general
    ones; of a vision transformer that of its patches.

    Args:
      backbone: see `sp_jax.load`.
      parts: of a row, and of a column; 1 is the mean of the whole map.

    Returns:
      One whose features are float32 [n, parts * parts * C].

    Raises:
      UserError: the backbone gives no map, or one with fewer rows than parts.
    """
    module = backbone.module.for_detection()
    if module.stride is None:
        raise UserError(
            f"--layout needs a map, which {module.describe()} does not give."
        )
    if parts * module.stride > backbone.size:
        raise UserError(
            f"--layout={parts} is too much: the map has "
            f"{backbone.size // module.stride} rows."
        )
    return dataclasses.replace(backbone, module=Layout(module, parts))


class Layout(Facts, nn.Module):
    """A backbone's map, averaged over parts of it; variables have the backbone's names.

    Parts overlap by a row where their number does not divide the map.
    """

    backbone: nn.Module
    parts: int

    def setup(self) -> None:
        """Give the backbone's variables this module's place, and not one below."""
        nn.share_scope(self, self.backbone)

    def __call__(
        self, x: Float[Any, "n height width 3"], train: bool
    ) -> Float[Array, "n features"]:
        """Map normalised images to features."""
        x = self.backbone.trunk(x, train).astype(jnp.float32)
        rows, columns = (_bounds(size, self.parts) for size in x.shape[1:3])
        means = [x[:, row, column].mean((1, 2)) for row in rows for column in columns]
        return jnp.concatenate(means, axis=-1)


def _bounds(size: int, parts: int) -> list[slice]:
    return [slice(i * size // parts, -(-(i + 1) * size // parts)) for i in range(parts)]
