r"""Retrieval of the same thing in another look, by the cosine of frozen features.

For every ordered pair (a, b) of values of one attribute (artists, say): of all things
that every artist has drawn, is the drawing by b nearest to a's drawing of a thing the
one of the same thing? Nothing is fitted, so it asks what the features themselves hold.

  python -m eval.retrieval --checkpoint=RUN --dataset=emoji \
    --splits=probe_train,probe_test --match=label --across=artist
"""

import functools
import itertools
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eval import cli
from eval.features import Evaluator, Extractor, map_rows, normalize
from input_pipeline.errors import UserError
from input_pipeline.store import ImageStore, open_store

# Largest similarity matrix of one call, in elements (256 MiB of float32).
_BUDGET = 2**26


class Options(NamedTuple):
    """What a config or the command line may set.

    Attributes:
      dataset: name of an image store.
      splits: whose images form the gallery, together.
      match: the target that a query and its answer share.
      across: the attribute in which they differ.
      image_size: side of the stored images in pixels; that of the run.
      resize: how they were made square, "crop" or "squash"; that of the run.
      max_skipped: share of the images that may be damaged and left out.
      data_dir: where prepared images are kept.
    """

    dataset: str
    splits: tuple[str, ...] = ("probe_train", "probe_test")
    match: str = "label"
    across: str = "artist"
    image_size: int = 64
    resize: str = "crop"
    max_skipped: float = 0.01
    data_dir: str | None = None


def create(**options: Any) -> Evaluator:
    """An evaluator that returns {"top1": mean over ordered pairs, "chance": 1 / G}.

    G is the number of things in the gallery.

    Args:
      **options: see `Options`.

    Raises:
      UserError: the options do not fit the data.
    """
    _, stores, gallery = _open(options)

    def evaluate(extractor: Extractor, step: int) -> dict[str, float]:
        features = np.concatenate([extractor.extract(store) for store in stores])
        return {"top1": top1(features, gallery), "chance": 1 / gallery.shape[1]}

    return evaluate


def describe(**options: Any) -> str:
    """The protocol in one line."""
    settings, _, gallery = _open(options)
    values, things = gallery.shape
    return (
        f"retrieval top-1 by cosine, {settings.dataset} {'+'.join(settings.splits)}: "
        f"the {settings.match} of an image among {things:,} of another "
        f"{settings.across}, mean over {values * (values - 1)} ordered pairs "
        f"of {settings.across}s"
    )


def _open(
    options: dict[str, Any],
) -> tuple[Options, list[ImageStore], np.ndarray]:
    """Settings, stores, and the gallery as rows of the stores one after another."""
    settings = cli.read_options(Options, options)
    if len(set(settings.splits)) < len(settings.splits):
        raise UserError(f"splits names one twice: {', '.join(settings.splits)}.")
    stores = [
        open_store(
            settings.dataset,
            split,
            image_size=settings.image_size,
            resize=settings.resize,
            max_skipped=settings.max_skipped,
            data_dir=settings.data_dir,
        )
        for split in settings.splits
    ]
    match = np.concatenate([store.target(settings.match)[0] for store in stores])
    across = np.concatenate([store.target(settings.across)[0] for store in stores])
    gallery = find_gallery(match, across)
    if gallery.shape[0] < 2 or gallery.shape[1] < 2:
        raise UserError(
            f"{settings.dataset} {'+'.join(settings.splits)}: retrieval needs two "
            f"{settings.across}s and two {settings.match}s that each of them has; "
            f"found {gallery.shape[0]} and {gallery.shape[1]}. Choose other splits, "
            "match or across."
        )
    return settings, stores, gallery


def find_gallery(match: np.ndarray, across: np.ndarray) -> np.ndarray:
    """The images of all things that exist for every value of `across`.

    Args:
      match: int [N], which thing an image shows; -1: unknown, left out.
      across: int [N], e.g. its artist; -1: unknown, left out.

    Returns:
      int64 [A, G]: row number of each value's image of each thing, things in the same
      order for every value. Where a value has several images of a thing: the first.

    Example:
      >>> find_gallery(np.array([7, 8, 7, 9, 8]), np.array([0, 0, 1, 1, 1]))
      array([[0, 1],
             [2, 4]])
    """
    known = (match >= 0) & (across >= 0)
    first: dict[tuple[int, int], int] = {}
    for row in np.flatnonzero(known).tolist():
        first.setdefault((int(across[row]), int(match[row])), row)
    values = np.unique(across[known]).tolist()
    things = [
        thing
        for thing in np.unique(match[known]).tolist()
        if all((value, thing) in first for value in values)
    ]
    rows = [[first[value, thing] for thing in things] for value in values]
    return np.asarray(rows, np.int64).reshape(len(values), len(things))


def top1(features: np.ndarray, gallery: np.ndarray) -> float:
    """Share of queries whose nearest image of another value shows the same thing.

    Args:
      features: float [N, D], of any length: the cosine is taken.
      gallery: int [A, G] row numbers, see `find_gallery`.

    Returns:
      The mean over the A (A - 1) ordered pairs of values, in [0, 1].
    """
    # NumPy: a few small products, the same on every accelerator.
    views = [normalize(features[rows]) for rows in gallery]
    answer = np.arange(gallery.shape[1])
    found = [
        np.mean(np.argmax(query @ other.T, axis=1) == answer)
        for query, other in itertools.permutations(views, 2)
    ]
    return float(np.mean(found))


def nearest(
    features: np.ndarray,
    store: ImageStore,
    queries: np.ndarray,
    n: int,
    *,
    across: str | None = None,
) -> np.ndarray:
    """The images nearest to some images of a store, for a sheet of pictures.

    Args:
      features: float [len(store), D].
      store: where the images are from.
      queries: int [q], row numbers of the images to look up.
      n: number of neighbours.
      across: an attribute, e.g. "artist": leave out all images that share the query's
        value of it. None: leave out the query only.

    Returns:
      int32 [q, n] row numbers, nearest first.

    Raises:
      UserError: no such attribute, or a query has fewer than n images to choose from.
    """
    if across is None:
        kind = np.arange(len(store), dtype=np.int32)
    else:
        kind = np.asarray(store.target(across)[0], np.int32)
    queries = np.asarray(queries)
    values, counts = np.unique(kind, return_counts=True)
    asked = counts[np.searchsorted(values, kind[queries])]
    candidates = len(store) - int(asked.max())
    if not 1 <= n <= candidates:
        raise UserError(
            f"n={n} neighbours: an image of {store.name} {store.split} has "
            f"{candidates:,} others to choose from; ask for 1 to {candidates:,}."
        )
    unit = normalize(features)
    bank, kinds = jax.device_put(unit), jax.device_put(kind)
    return map_rows(
        lambda rows: _nearest(bank, kinds, unit[queries[rows]], kind[queries[rows]], n),
        len(queries),
        min(256, max(1, _BUDGET // len(store))),
    )


@functools.partial(jax.jit, static_argnames="n")
def _nearest(
    bank: jax.Array, kinds: jax.Array, query: jax.Array, kind: jax.Array, n: int
) -> jax.Array:
    similarity = jnp.dot(query, bank.T, precision=jax.lax.Precision.HIGHEST)
    allowed = kind[:, None] != kinds
    return jax.lax.top_k(jnp.where(allowed, similarity, -jnp.inf), n)[1]


if __name__ == "__main__":
    cli.main("retrieval", sys.modules[__name__])
