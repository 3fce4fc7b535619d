"""The loss of DeepCluster-v2, and the clustering that makes its targets."""

import jax
import jax.numpy as jnp

from sp_jax.losses.nt_xent import l2_normalize

IGNORED = -100  # the target of a row that takes no part


def deepcluster(
    scores: jax.Array, targets: jax.Array, temperature: float = 0.1
) -> jax.Array:
    r"""Cross entropy with the number of a cluster.

        loss = mean over rows with a target of  -log softmax(scores_i / T)_target(i)

    Args:
        scores: similarities to the prototypes, [N, K], any float dtype.
        targets: int32 [N]; a row with -100 takes no part.
        temperature: T > 0.

    Returns:
        A float32 scalar; 0 if no row has a target.

    Raises:
        ValueError: the shapes do not fit.

    Source: https://arxiv.org/abs/2006.09882, appendix (DeepCluster-v2).

    Example:
        >>> scores = jnp.zeros((3, 4))
        >>> round(float(deepcluster(scores, jnp.array([0, 3, -100]))), 4)  # ln 4
        1.3863
    """
    if scores.ndim != 2 or targets.shape != scores.shape[:1]:
        raise ValueError(
            "deepcluster needs scores [N, K] and targets [N], not "
            f"{scores.shape} and {targets.shape}."
        )
    used = targets >= 0
    log_p = jax.nn.log_softmax(scores.astype(jnp.float32) / temperature, axis=-1)
    picked = jnp.take_along_axis(log_p, jnp.where(used, targets, 0)[:, None], axis=1)
    total = -jnp.sum(jnp.where(used, picked[:, 0], 0.0))
    return total / jnp.maximum(jnp.sum(used), 1)


def spherical_kmeans(
    key: jax.Array,
    points: jax.Array,
    num_clusters: int,
    *,
    iterations: int = 10,
    valid: jax.Array | None = None,
    chunk: int = 4096,
) -> tuple[jax.Array, jax.Array]:
    """k-means on the unit sphere, on the accelerator.

    The centroids start as different points drawn at random. Each iteration gives every
    point to the centroid of the largest dot product, replaces the centroids by the means
    of their points and scales them to length 1. An empty cluster keeps its centroid.
    Sums are products with one-hot rows and not scattered, so that they are the same each
    time on a GPU.

    Args:
        key: a random key, for the first centroids.
        points: float [N, D]; unit rows.
        num_clusters: K, at most the number of valid points. That number is not known
            while tracing. With fewer valid points each is a cluster of its own, and the
            surplus centroids are rows that are not valid.
        iterations: how often.
        valid: bool [N]: points that take part; all if None.
        chunk: rows at a time; bounds the memory to chunk x K scores.

    Returns:
        centroids, float32 [K, D]; and int32 [N], the cluster of each point, -100 for
        points that are not valid.

    Raises:
        ValueError: there are fewer points than clusters.

    Source: https://arxiv.org/abs/2006.09882, appendix (DeepCluster-v2), and its code,
    https://github.com/facebookresearch/swav/blob/main/main_deepclusterv2.py

    Example:
        >>> points = l2_normalize(jax.random.normal(jax.random.key(0), (100, 8)))
        >>> centroids, cluster = spherical_kmeans(jax.random.key(1), points, 5)
        >>> centroids.shape, cluster.shape
        ((5, 8), (100,))
    """
    n, d = points.shape
    if num_clusters > n:
        raise ValueError(
            f"spherical_kmeans cannot make {num_clusters} clusters of {n} points: use "
            "fewer clusters."
        )
    points = points.astype(jnp.float32)
    valid = jnp.ones(n, bool) if valid is None else valid
    ranks = jnp.where(valid, jax.random.uniform(key, (n,)), -1.0)
    centroids = points[jax.lax.top_k(ranks, num_clusters)[1]]

    chunk = min(chunk, n)
    padding = -n % chunk
    blocks = jnp.pad(points, ((0, padding), (0, 0))).reshape(-1, chunk, d)
    masks = jnp.pad(valid, (0, padding)).reshape(-1, chunk)
    highest = jax.lax.Precision.HIGHEST

    def assign(centroids, block):
        return jnp.argmax(jnp.matmul(block, centroids.T, precision=highest), axis=1)

    def iterate(_, centroids):
        def add(sums, part):
            block, mask = part
            one_hot = jax.nn.one_hot(assign(centroids, block), num_clusters)
            one_hot = jnp.where(mask[:, None], one_hot, 0.0)
            sums += jnp.matmul(one_hot.T, block, precision=highest)
            return sums, one_hot.sum(0)

        sums, counts = jax.lax.scan(add, jnp.zeros_like(centroids), (blocks, masks))
        filled = counts.sum(0)[:, None] > 0
        return jnp.where(filled, l2_normalize(sums), centroids)

    centroids = jax.lax.fori_loop(0, iterations, iterate, centroids)
    clusters = jax.lax.map(lambda block: assign(centroids, block), blocks)
    clusters = clusters.reshape(-1)[:n].astype(jnp.int32)
    return centroids, jnp.where(valid, clusters, IGNORED)
