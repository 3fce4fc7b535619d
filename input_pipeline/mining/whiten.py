"""Features of which no direction counts more because it varies more."""

import numpy as np

from sp_jax import extras


def whitening(
    features: np.ndarray, components: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The principal components of features, each divided by its standard deviation.

    Args:
      features: float32 [N, D].
      components: how many at most, those that vary most; None: all. None has variance 0.

    Returns:
      mean [D] and matrix [D, D'], float32: `(x - mean) @ matrix` has mean 0, variance 1 and
      no covariance.

    Raises:
      UserError: scikit-learn is not installed.

    Example:
      >>> x = np.random.default_rng(0).normal(size=(50, 3)) * [1, 10, 100]
      >>> mean, matrix = whitening(x)
      >>> np.allclose(np.cov((x - mean) @ matrix, rowvar=False), np.eye(3), atol=1e-4)
      True
    """
    extras.require("eval", "Whitening")
    from sklearn.decomposition import PCA

    count = min(components or features.shape[1], *features.shape)
    pca = PCA(count, random_state=0).fit(features)
    # Of fewer images than numbers the last component is nothing but rounding.
    kept = pca.explained_variance_ > 1e-7 * pca.explained_variance_[0]
    scale = np.sqrt(pca.explained_variance_[kept, None])
    matrix = (pca.components_[kept] / scale).T
    return pca.mean_.astype(np.float32), matrix.astype(np.float32)
