r"""Retrieval by the cosine of frozen features. Nothing is fitted, so it asks what the
features themselves hold.

Two protocols. "across", for every ordered pair (a, b) of values of one attribute (artists,
say): of all things that every artist has drawn, is the drawing by b nearest to a's drawing
of a thing the one of the same thing? "leave_one_out", for any store with labels: each image
against all others, where those of its label are relevant.

recall@k is the share of queries with a relevant image among the k nearest; mAP is the mean
over queries of the average precision of the whole ranking. With one relevant image, as in
"across", that is 1 / its rank.

  python -m eval.retrieval --checkpoint=RUN --dataset=emoji \
    --splits=probe_train,probe_test --match=label --across=artist
  python -m eval.retrieval --checkpoint=RUN --dataset=folder:DIR --splits=test \
    --protocol=leave_one_out
"""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from eval import cli, ranking
from eval.evaluator import Evaluator, Number
from eval.options import Count, read_options
from eval.task import StoreOptions
from input_pipeline.stores import ImageStore
from sp_jax import neighbours
from sp_jax.errors import UserError
from sp_jax.features import Extractor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(StoreOptions):
    """The options, for a config or the command line.

    Attributes:
      splits: their images are ranked together.
      match: the target that a query and its answers share.
      across: the attribute in which they differ, in the protocol "across".
      protocol: "across" or "leave_one_out".
      k: numbers of neighbours for the recall.
    """

    splits: tuple[str, ...] = ("probe_train", "probe_test")
    match: str = "label"
    across: str = "artist"
    protocol: str = "across"
    k: tuple[Count, ...] = (1, 5, 10)


# How many images there are to find; (features float [N, D], most k) -> bool [queries, k],
# whether one of the nearest i + 1 is relevant, and float [queries], the average precision;
# the top-1 of features that say nothing; and all of this in words, for the protocol.
Rank = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
Search = tuple[int, Rank, float, str]


def create(**options: Any) -> Evaluator:
    """An evaluator that returns recall and mAP, in [0, 1].

    It returns {"top1": recall@1, "chance": that of features which say nothing,
    "recall_kN": recall@N for each of k, "map": mean average precision}. Of the default k,
    numbers above that of the images to find are left out.
    """
    settings = read_options(Options, options)
    if len(set(settings.splits)) < len(settings.splits):
        raise UserError(f"splits names one twice: {', '.join(settings.splits)}.")
    if settings.protocol not in _PROTOCOLS:
        raise UserError(
            f"Unknown protocol {settings.protocol!r}: choose across or leave_one_out."
        )
    stores = [settings.open(split) for split in settings.splits]
    where = f"{settings.dataset} {'+'.join(settings.splits)}"
    count, rank, chance, text = _PROTOCOLS[settings.protocol](settings, stores, where)
    numbers, left_out = neighbours.fit_k(settings.k, Options.k, count, "images to find")

    def evaluate(extractor: Extractor, step: int) -> dict[str, float]:
        features = np.concatenate([extractor.extract(store) for store in stores])
        found, precision = rank(features, max(numbers))
        recall = found.mean(axis=0)
        return {
            "top1": float(recall[0]),
            "chance": chance,
            **{f"recall_k{k}": float(recall[k - 1]) for k in numbers},
            "map": float(precision.mean(dtype=np.float64)),
        }

    several = ",".join(map(str, numbers)) + left_out
    protocol = f"retrieval by cosine, recall@{several} and mAP, {where}: {text}"
    names = [f"recall_k{k}" for k in numbers if k > 1] + ["map"]
    headline = [Number(name, percent=True) for name in names]
    headline.insert(0, Number("top1", percent=True, chance=chance))
    return Evaluator(protocol, evaluate, tuple(headline), tuple(stores))


def _across(settings: Options, stores: list[ImageStore], where: str) -> Search:
    match, across = _targets(stores, settings.match), _targets(stores, settings.across)
    gallery = find_gallery(match, across)
    values, things = gallery.shape
    if values < 2 or things < 2:
        raise UserError(
            f"{where}: retrieval needs two {settings.across}s and two {settings.match}s "
            f"that each of them has; found {values} and {things}. Choose other splits, "
            "match or across, or protocol=leave_one_out."
        )

    def rank(features: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
        ranks = ranking.answer_ranks(features, gallery).reshape(-1)
        return ranks[:, None] <= np.arange(1, most + 1), 1 / ranks

    text = (
        f"the {settings.match} of an image among {things:,} of another "
        f"{settings.across}, mean over {values * (values - 1)} ordered pairs "
        f"of {settings.across}s"
    )
    return things, rank, 1 / things, text


def _leave_one_out(settings: Options, stores: list[ImageStore], where: str) -> Search:
    labels = _targets(stores, settings.match)
    rows = np.flatnonzero(labels >= 0)
    labels = labels[rows]
    sizes = np.bincount(labels)[labels] if len(rows) else np.zeros(0)
    others = sizes[sizes > 1] - 1
    if not len(others):
        raise UserError(
            f"{where} has no two images of one {settings.match}: choose other splits or "
            "match."
        )
    count = len(rows) - 1

    def rank(features: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
        relevant, precision = ranking.leave_one_out(features[rows], labels, most)
        return np.logical_or.accumulate(relevant, axis=1), precision

    text = (
        f"images of the {settings.match} of an image among all {count:,} others, "
        f"{len(others):,} queries"
    )
    return count, rank, float(np.mean(others / count)), text


_PROTOCOLS = {"across": _across, "leave_one_out": _leave_one_out}


def _targets(stores: list[ImageStore], name: str) -> np.ndarray:
    return np.concatenate([store.target(name)[0] for store in stores])


def find_gallery(match: np.ndarray, across: np.ndarray) -> np.ndarray:
    """The images of all things that every value of `across` has.

    `match` int [N] is which thing an image shows, `across` int [N] e.g. its artist; what is
    unknown, -1, is left out.

    Returns:
      int64 [A, G]: row number of each value's image of each thing, things in the same
      order for every value. Where a value has several images of a thing: the first.

    Example:
      >>> find_gallery(np.array([7, 8, 7, 9, 8]), np.array([0, 0, 1, 1, 1]))
      array([[0, 1],
             [2, 4]])
    """
    # From the last to the first, which stays.
    rows = np.flatnonzero((match >= 0) & (across >= 0))[::-1]
    values, value = np.unique(across[rows], return_inverse=True)
    things, thing = np.unique(match[rows], return_inverse=True)
    gallery = np.full((len(values), len(things)), -1)
    gallery[value, thing] = rows
    return gallery[:, (gallery >= 0).all(axis=0)]


def nearest(
    features: np.ndarray,
    store: ImageStore,
    queries: np.ndarray,
    n: int,
    *,
    across: str | None = None,
) -> np.ndarray:
    """The n images nearest to each query, a row of the store: int32 [q, n], nearest first.

    Features are float [len(store), D]. All images are left out that share the query's value of
    the attribute `across`, e.g. "artist"; without one the query only.

    Raises:
      UserError: no such attribute, or a query has fewer than n images to choose from.
    """
    kind = np.arange(len(store)) if across is None else store.target(across)[0]
    kind, queries = np.asarray(kind, np.int32), np.asarray(queries)
    _, group, counts = np.unique(kind, return_inverse=True, return_counts=True)
    candidates = len(store) - int(counts[group[queries]].max())
    if not 1 <= n <= candidates:
        raise UserError(
            f"n={n} neighbours: an image of {store.name} {store.split} has "
            f"{candidates:,} others to choose from; ask for 1 to {candidates:,}."
        )
    rows, _ = neighbours.nearest(
        features[queries], features, n, allowed=_differs, tags=(kind[queries], kind)
    )
    return rows


def _differs(kind: jax.Array, kinds: jax.Array) -> jax.Array:
    return kind[:, None] != kinds


if __name__ == "__main__":
    cli.main("retrieval", sys.modules[__name__])
