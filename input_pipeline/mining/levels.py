"""Features that keep what is where, from all levels of an encoder."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from input_pipeline.mining.whiten import whitening
from sp_jax.backbone import Backbone
from sp_jax.errors import UserError
from sp_jax.features import Extractor, Images
from sp_jax.losses import l2_normalize

PARTS = 4  # Of a row, and of a column, of a map.
COMPONENTS = 256  # Of a level.
SAMPLE = 4096  # Images in which they are found.


def find_levels(backbone: Backbone, store: Images) -> np.ndarray:
    """Features of every image of a store by what is where, from edges to what it learned last.

    Each map of `sp_jax.models.Facts.levels` is averaged in 4 x 4 parts (or as many as it has).
    The principal components of these numbers, at most 256, each with variance 1, are a level;
    levels count alike. Components are found in at most 4,096 of the images.

    Args:
      backbone: see `sp_jax.load`.
      store: of the images.

    Returns:
      float32 [len(store), D], D at most 256 a level.

    Raises:
      UserError: the backbone has no levels, or scikit-learn is not installed.
    """
    if not backbone.module.levels():
        raise UserError(
            f"--levels needs maps, which {backbone.module.describe()} does not give."
        )
    fields = (field.name for field in dataclasses.fields(Backbone))
    whole = Levels(**{name: getattr(backbone, name) for name in fields})
    rows = np.random.default_rng(0).permutation(len(store))[:SAMPLE]
    sample = Extractor(whole).map(store.read(np.sort(rows)))
    shapes = jax.eval_shape(whole.maps, whole.variables, store.read(rows[:1]))
    widths = np.cumsum([level.shape[1] for level in shapes])[:-1]
    levels = np.split(sample, widths, axis=1)
    projections = [whitening(level, COMPONENTS) for level in levels]
    return Extractor(dataclasses.replace(whole, projections=projections)).extract(store)


@dataclasses.dataclass(frozen=True)
class Levels(Backbone):
    """A backbone whose features are its levels, side by side.

    Attributes:
        projections: mean [C] and matrix [C, D] of each level, see `whitening`; () leaves
            them as they are.
    """

    projections: Any = ()

    def apply(self, variables: Any, images: jax.Array) -> jax.Array:
        """See `Backbone.apply`."""
        levels = self.maps(variables, images)
        if self.projections:
            levels = [
                l2_normalize((level - mean) @ matrix)
                for level, (mean, matrix) in zip(levels, self.projections, strict=True)
            ]
        return jnp.concatenate(levels, axis=1)

    def maps(self, variables: Any, images: jax.Array) -> list[Float[Array, "n _"]]:
        """Each map, averaged in parts; of length 1."""
        names = self.module.levels()
        x = self.preprocess(images)
        _, state = self.module.apply(
            variables,
            x,
            False,
            capture_intermediates=lambda module, _: module.name in names,
            mutable=["intermediates"],
        )
        found = [state["intermediates"][name]["__call__"][0] for name in names]
        rows, columns = (side // self.module.patch_size for side in x.shape[1:3])
        # The tokens of a transformer: one of the class, then patches.
        found = [
            y[:, 1 : 1 + rows * columns].reshape(len(y), rows, columns, -1)
            if y.ndim == 3
            else y
            for y in found
        ]
        return [l2_normalize(_average(y)) for y in found]


def _average(x: Float[Array, "n rows columns c"]) -> Float[Array, "n features"]:
    """The means of parts of a map; they overlap where their number does not divide it."""
    rows, columns = (_bounds(size, min(PARTS, size)) for size in x.shape[1:3])
    x = x.astype(jnp.float32)
    means = [x[:, row, column].mean((1, 2)) for row in rows for column in columns]
    return jnp.concatenate(means, axis=-1)


def _bounds(size: int, parts: int) -> list[slice]:
    return [slice(i * size // parts, -(-(i + 1) * size // parts)) for i in range(parts)]
