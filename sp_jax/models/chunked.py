"""Gradient caching: a large batch through a backbone, one chunk at a time.

A loss that couples the rows of a batch needs the features of all of them, so the gradients
of small batches cannot be added up. GradCache computes the features without keeping what
is inside the backbone, then the gradient of the loss by the features, and then goes
through the chunks once more to take it on to the parameters. In JAX that is a loop over
rematerialised chunks. Heads and loss see the whole batch and know nothing of it, so it
holds for every method, and for the gradient of every loss.

Source: https://arxiv.org/abs/2101.06983
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from sp_jax.models.facts import Facts


class Chunked(Facts, nn.Module):
    """A backbone that keeps the activations of only one chunk of the batch.

    Pair p of a batch belongs to chunk `p % chunks`, with all its rows. So each device
    takes an equal share of each chunk from its own rows, and their number changes nothing.

    Without batch normalisation in the backbone, features and gradients are those of the
    whole batch. With it, each chunk is normalised by itself (on all devices together),
    and the gradient is exactly that of this network; the running statistics move by the
    mean of the chunks. Stochastic depth draws a mask of its own for each chunk.

    Variables have the names that they have without chunks. Evaluation has none: without a
    gradient nothing is kept.

    Attributes:
        backbone: a module of `sp_jax.models`.
        chunks: in how many parts a batch goes through it.
        batch_size: pairs in a batch. Each has the same number of rows: two for the joint
            forward of two views, nine for the patches of a jigsaw.

    Raises:
        ValueError: at construction, if the chunks do not divide the batch; when called,
            if the batch does not divide the rows.

    Example:
        >>> from sp_jax import models
        >>> Chunked(models.get("vit_small"), chunks=4, batch_size=1024).dtype.__name__
        'float32'
    """

    backbone: nn.Module
    chunks: int
    batch_size: int

    chunked = True

    def __post_init__(self) -> None:
        """Check the attributes as soon as they are set."""
        super().__post_init__()
        chunks, size = self.chunks, self.batch_size
        if not isinstance(chunks, int) or chunks < 1 or size % chunks:
            raise ValueError(
                f"chunks is {chunks!r}: give a whole number that divides the batch size "
                f"{size}."
            )

    def setup(self) -> None:
        """Store the backbone's variables under this module's name, not one level below."""
        nn.share_scope(self, self.backbone)

    @property
    def dtype(self) -> DTypeLike:
        """Compute dtype of the backbone."""
        return self.backbone.dtype

    def __call__(
        self, x: Float[Any, "n height width 3"], train: bool
    ) -> Float[Array, "n features"]:
        """Map normalised images to float32 features."""
        if not train or self.is_initializing():
            return self.backbone(x, train)
        if x.shape[0] % self.batch_size:
            raise ValueError(
                f"{x.shape[0]} images cannot be shared equally by {self.batch_size} pairs."
            )
        backbone, variables = self.backbone.clone(parent=None), self.backbone.variables
        keys = None
        if self.has_rng("drop_path"):
            keys = jax.random.split(self.make_rng("drop_path"), self.chunks)

        def forward(chunk):
            rows, key = chunk
            x = rows.reshape(-1, *rows.shape[2:])
            rngs = None if key is None else {"drop_path": key}
            features, new = backbone.apply(
                variables, x, train, mutable=["batch_stats"], rngs=rngs
            )
            features = features.reshape(*rows.shape[:2], -1)
            return features, new.get("batch_stats", {})

        # [N] -> [pairs of a chunk, chunks, rows of a pair]: a device's rows stay in it.
        pairs = self.batch_size // self.chunks
        rows = x.reshape(pairs, self.chunks, -1, *x.shape[1:]).swapaxes(0, 1)
        # A loop already keeps the compiler from sharing the two forwards.
        forward = jax.checkpoint(forward, prevent_cse=False)
        features, stats = jax.lax.map(forward, (rows, keys))
        for name, value in stats.items():
            mean = jax.tree.map(lambda s: jnp.mean(s, axis=0), value)
            self.put_variable("batch_stats", name, mean)
        return features.swapaxes(0, 1).reshape(x.shape[0], -1)
