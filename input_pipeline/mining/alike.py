"""Which images are alike by their features, and which pairs several encoders agree on."""

import numpy as np

from sp_jax import extras
from sp_jax.errors import UserError

SCALINGS = ("none", "standard", "whiten")
_CANDIDATES = 10  # Times k: neighbours by cosine among which local scaling chooses.


def rescale(features: np.ndarray, how: str) -> np.ndarray:
    """Features of which no direction counts more because it varies more.

    Args:
      features: float32 [N, D].
      how: "none"; "standard": each number has mean 0 and variance 1; "whiten": so has
        each principal component, as many as rows allow and none of variance 0.

    Returns:
      float32 [N, D'].

    Raises:
      UserError: there is no such scaling, or scikit-learn is not installed.
    """
    if how not in SCALINGS:
        raise UserError(f"scaling is {how!r}: use one of {', '.join(SCALINGS)}.")
    if how == "none":
        return features
    extras.require("eval", f"--scaling={how}")
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    if how == "standard":
        return StandardScaler().fit_transform(features)
    pca = PCA(svd_solver="full").fit(features)
    kept = pca.explained_variance_ > 1e-7 * pca.explained_variance_[0]
    whitened = pca.transform(features)[:, kept] / np.sqrt(pca.explained_variance_[kept])
    return whitened.astype(np.float32)


def find_alike(
    features: np.ndarray, k: int, groups: np.ndarray, local_scaling: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The k most similar others of each image, as `sp_jax.neighbours.nearest_others`.

    With `local_scaling` the similarity of x and y is 2 cos(x, y) - r(x) - r(y), where r is the
    mean cosine of an image with its k nearest: one that is near to all ("hub") is near to none
    (CSLS, https://arxiv.org/abs/1710.04087). It chooses among the 10 k nearest by cosine.
    """
    from sp_jax.neighbours import nearest_others  # Starts jax: late.

    if not local_scaling:
        return nearest_others(features, k, groups)
    wide = min(_CANDIDATES * k, len(features) - 1)
    neighbours, cosine = nearest_others(features, wide, groups)
    nearest = np.where(np.isfinite(cosine[:, :k]), cosine[:, :k], 0)
    radius = nearest.mean(axis=1)
    scaled = 2 * cosine - radius[:, None] - radius[neighbours]
    best = np.argsort(-scaled, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(neighbours, best, 1), np.take_along_axis(scaled, best, 1)


def agreed(
    first: np.ndarray, second: np.ndarray, other: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Which pairs, bool [P], are among the pairs of another encoder, first < second in both.

    Example:
      >>> agreed(np.array([0, 1]), np.array([2, 3]), (np.array([1]), np.array([3]))).tolist()
      [False, True]
    """
    count = 1 + max(x.max(initial=0) for x in (second, other[1]))
    return np.isin(first * count + second, other[0] * count + other[1])
