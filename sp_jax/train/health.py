"""The health of a representation, measured when a line is logged."""

from collections.abc import Callable

import jax
from jax.sharding import Mesh

from sp_jax import losses
from sp_jax.sharding import by_batch, replicated


def make_health(mesh: Mesh) -> Callable[[jax.Array], dict[str, jax.Array]]:
    """Jit it for features that are split over the devices of a mesh.

    Returns:
        `health(features float32 [B, 2, D]) -> float32 scalars`, by name.
    """

    def health(features):
        # eigvalsh has no sharded form: every device gets all features.
        features = jax.lax.with_sharding_constraint(features, replicated(mesh))
        x, y = features[:, 0], features[:, 1]
        flat = features.reshape(-1, features.shape[-1])
        return {
            "feature_std": losses.feature_std(flat),
            "alignment": losses.alignment(x, y),
            "uniformity": losses.uniformity(x),
            "effective_rank": losses.effective_rank(flat),
        }

    return jax.jit(health, in_shardings=by_batch(mesh), out_shardings=replicated(mesh))
