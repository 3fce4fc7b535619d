r"""Numbers that describe the features of a store, without fitting anything.

With features x_i of N images, u_i = x_i / |x_i|, and groups: images of one `target`.

  rankme       exp of the entropy of s / sum(s), s the singular values of the matrix of all
               x_i (https://arxiv.org/abs/2210.02885)
  lidar        the same of the eigenvalues of Sw^-1/2 Sb Sw^-1/2: the groups of two images
               or more are the classes of https://arxiv.org/abs/2312.04000, where they are
               views of one image. Sb is the covariance of the n group means, Sw the mean
               of the covariances of the groups plus delta on the diagonal; each group has
               the same weight. At most n - 1. Groups of few images raise it, for the noise
               of their means is part of Sb.
  alignment    mean |u_i - u_j|^2 over pairs of one group
  uniformity   log mean exp(-2 |u_i - u_j|^2) over all pairs
               (both https://arxiv.org/abs/2005.10242)
  feature_std  mean over dimensions of the standard deviation of u (https://arxiv.org/abs/2011.10566)
  intra_distance, inter_distance   mean |u_i - u_j| over pairs of one group, of two groups;
               distance_ratio is the first over the second

A pair is two different images, and all pairs are counted.

  python -m eval.metrics --checkpoint=RUN --dataset=emoji --split=probe_test
"""

import dataclasses
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eval import cli
from eval.evaluator import Evaluator, Number
from eval.options import Positive, read_options, shown
from eval.task import StoreOptions
from sp_jax import losses
from sp_jax.errors import UserError
from sp_jax.features import Extractor, map_rows, normalize

# Largest block of similarities, in elements (64 MiB of float32; a few exist at once).
_BUDGET = 2**24

NUMBERS = (
    Number("rankme"),
    Number("lidar"),
    Number("feature_std", "neither"),
    Number("uniformity", "lower"),
    Number("alignment", "lower"),
    Number("intra_distance", "lower"),
    Number("inter_distance"),
    Number("distance_ratio", "lower"),
)
WITHOUT_GROUPS = ("rankme", "feature_std", "uniformity")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(StoreOptions):
    """The options, for a config or the command line.

    Attributes:
      split: the images to measure.
      target: "label" or an attribute of the store; images that share it are a group.
      delta: added to the diagonal of LiDAR's covariance within groups.
    """

    split: str
    target: str = "label"
    delta: Positive = 1e-4


def create(**options: Any) -> Evaluator:
    """An evaluator that returns the numbers that the module's text defines.

    Without two groups of two images (an unlabelled store, say) they are only "rankme",
    "uniformity" and "feature_std".
    """
    settings = read_options(Options, options)
    store = settings.open(settings.split)
    if len(store) < 2:
        raise UserError(f"{store.name} {store.split} has no two images to compare.")
    labels = store.target(settings.target)[0]
    groups = len(_pairable(labels))

    def evaluate(extractor: Extractor, step: int) -> dict[str, float]:
        features = extractor.extract(store)
        result = {"rankme": rankme(features)}
        if groups > 1:
            result["lidar"] = lidar(features, labels, settings.delta)
        unit = normalize(features)
        with jax.transfer_guard("allow"):
            result["feature_std"] = float(losses.feature_std(unit))
        return result | distances(unit, labels)

    headline = tuple(x for x in NUMBERS if groups > 1 or x.name in WITHOUT_GROUPS)
    text = "without groups"
    if groups > 1:
        text = (
            f"groups by {settings.target}, LiDAR of {groups:,} groups with two images or "
            f"more, delta={shown(settings.delta)}"
        )
    where = f"{store.name} {store.split} ({len(store):,} images)"
    return Evaluator(f"representation of {where}, {text}", evaluate, headline, (store,))


def _pairable(groups: np.ndarray) -> np.ndarray:
    """Groups of two images or more; -1 is no group."""
    values, sizes = np.unique(groups[groups >= 0], return_counts=True)
    return values[sizes > 1]


def gram(x: np.ndarray, y: np.ndarray, x_mean: Any = 0, y_mean: Any = 0) -> np.ndarray:
    """(x - x_mean)^T (y - y_mean) of x [N, D] and y [N, E], float64 [D, E]."""
    return sum(
        (x[part] - np.asarray(x_mean, np.float64)).T
        @ (y[part] - np.asarray(y_mean, np.float64))
        for part in _parts(len(x))
    )


def _parts(count: int) -> list[slice]:
    """Blocks of rows whose float64 copy fits into memory."""
    return [slice(start, start + 4096) for start in range(0, count, 4096)]


def rankme(features: np.ndarray) -> float:
    """Effective rank of features [N, D]: 1 to min(N, D).

    `sp_jax.losses.effective_rank` in float64: of 2,048 dimensions that hold nothing, the
    rounding of float32 adds up.
    """
    x = features if len(features) > features.shape[1] else features.T
    eigenvalues = np.linalg.eigvalsh(gram(x, x))
    # Below this there is only the rounding of the Gram matrix.
    eigenvalues[eigenvalues < 1e-14 * eigenvalues[-1]] = 0
    return _entropy_rank(np.sqrt(eigenvalues))


def lidar(features: np.ndarray, groups: np.ndarray, delta: float) -> float:
    """LiDAR of features [N, D], see the module; groups int [N], of which -1 is none."""
    rows = np.flatnonzero(np.isin(groups, _pairable(groups)))
    rows = rows[np.argsort(groups[rows], kind="stable")]
    _, starts, index, sizes = np.unique(
        groups[rows], return_index=True, return_inverse=True, return_counts=True
    )
    x, count = features[rows], len(sizes)
    means = np.add.reduceat(x, starts, axis=0, dtype=np.float64) / sizes[:, None]
    within = delta * np.eye(x.shape[1])
    for part in _parts(len(x)):
        own = index[part]
        residual = (x[part] - means[own]) / np.sqrt(count * sizes[own])[:, None]
        within += residual.T @ residual
    between = (means - means.mean(axis=0)).T / np.sqrt(count)
    # With Sw = L L^T, the eigenvalues of L^-1 Sb L^-T are those of Sw^-1/2 Sb Sw^-1/2.
    whitened = np.linalg.solve(np.linalg.cholesky(within), between)
    return _entropy_rank(np.linalg.svd(whitened, compute_uv=False) ** 2)


def _entropy_rank(weights: np.ndarray) -> float:
    """Exp of the entropy of weights with any sum; 1 if all are zero."""
    p = weights[weights > 0] / max(weights.sum(), np.finfo(np.float64).tiny)
    return float(np.exp(-np.sum(p * np.log(p))))


def distances(unit: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """The means over pairs of rows of length 1, float32 [N, D]; see the module.

    All features are on the device at once, and a block of the N^2 distances. An image of the
    group -1, of int [N], is in none, so it counts for uniformity only.
    """
    groups = groups.astype(np.int32)
    bank = jax.device_put((unit, groups))
    potential, *sums = map_rows(
        lambda rows: _pairs(bank, unit[rows], groups[rows], rows.astype(np.int32)),
        len(unit),
        min(1024, max(1, _BUDGET // len(unit))),
        "distances",
    )
    top = potential.max()
    mean = np.exp((potential - top).astype(np.float64)).sum() / len(unit)
    result = {"uniformity": float(top + np.log(mean / (len(unit) - 1)))}
    sizes = np.unique(groups[groups >= 0], return_counts=True)[1].astype(np.int64)
    inside = int(np.sum(sizes * (sizes - 1)))
    between = int(sizes.sum() ** 2 - np.sum(sizes**2))
    if len(_pairable(groups)) > 1:
        squared, intra, inter = (float(x.sum(dtype=np.float64)) for x in sums)
        intra, inter = intra / inside, inter / between
        result |= {"alignment": squared / inside, "intra_distance": intra}
        result |= {"inter_distance": inter, "distance_ratio": intra / max(inter, 1e-12)}
    return result


@jax.jit
def _pairs(bank: Any, query: Any, group: Any, rows: Any) -> tuple[jax.Array, ...]:
    """Sums over the pairs of each query, float32 [q] each."""
    unit, groups = bank
    cosine = jnp.dot(query, unit.T, precision=jax.lax.Precision.HIGHEST)
    squared = jnp.maximum(2 - 2 * cosine, 0.0)
    distance = jnp.sqrt(squared)
    other = rows[:, None] != jnp.arange(len(unit))
    known = other & (group[:, None] >= 0) & (groups >= 0)
    same = group[:, None] == groups
    potential = jax.nn.logsumexp(jnp.where(other, -2 * squared, -jnp.inf), axis=1)
    return (
        potential,
        jnp.sum(jnp.where(known & same, squared, 0.0), axis=1),
        jnp.sum(jnp.where(known & same, distance, 0.0), axis=1),
        jnp.sum(jnp.where(known & ~same, distance, 0.0), axis=1),
    )


if __name__ == "__main__":
    cli.main("metrics", sys.modules[__name__])
