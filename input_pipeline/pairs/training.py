"""The pairs of a run: opened from its config, and kept beside its checkpoints."""

import hashlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.pairs import pairing
from input_pipeline.pairs.origin import read_origin
from input_pipeline.pairs.sampling import Sampler
from input_pipeline.pairs.table import PairTable, load_table, read_rows, save_table
from input_pipeline.stores import ImageStore, open_data
from sp_jax.errors import UserError

# Lines of a table that say where it and its images came from.
_PLACES = (b"# store=", b"# source=", b"# recipe=", b"# digest=")


class TrainingPairs(NamedTuple):
    """The data of a run: a store, its pairs, the images that it shows, and their batches."""

    images: ImageStore
    table: PairTable
    shown: ImageStore
    sampler: Sampler


def open_pairs(config: Any) -> TrainingPairs:
    """Open the images and pairs of a config; without a table, its seed draws the pairs.

    Raises:
      UserError: the data do not fit.
    """
    data = config.data
    images = open_data(data)
    if data.pairs:
        table = load_table(data.pairs, images)
    elif data.pairing == "augmented" and not _has_two_of_a_class(images):
        table = pairing.own_pairs(images)
    else:
        table = pairing.semantic_pairs(images, rounds=data.rounds, seed=config.seed)
    shown, renumbered = pairing.only_shown(images, table, data.pairing)
    kind = data.pairing, data.semantic_fraction, data.semantic_schedule
    sampler = Sampler(renumbered, config.batch_size, config.seed, *kind)
    return TrainingPairs(images, table, shown, sampler)


def _has_two_of_a_class(images: ImageStore) -> bool:
    labels = images.labels[images.labels >= 0]
    return len(np.unique(labels)) < len(labels)


def keep_pairs(
    workdir: pathlib.Path, table: PairTable, images: ImageStore, digest: str | None
) -> None:
    """Write pairs.csv, or check that a resumed run still has the same pairs.

    The place of the images may have changed: fingerprints identify them and the pairs.

    Args:
      workdir: the run's folder.
      table: the pairs.
      images: the store that they point into.
      digest: of the pairs that the run started with; None if it starts now.

    Raises:
      UserError: the pairs or their images have changed.
    """
    path, new = workdir / "pairs.csv", workdir / ".pairs.csv"
    save_table(new, table, images)
    try:
        if path.is_file():
            same = _without_places(path) == _without_places(new)
        else:
            same = digest in (None, table.digest)
        if not same:
            raise UserError(
                f"The pairs or their images changed since the run in {workdir} started "
                "(see its pairs.csv): use another --workdir, or restore them."
            )
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def _without_places(path: pathlib.Path) -> list[bytes]:
    """The lines of a table without those on the place of it and its images."""
    lines = path.read_bytes().split(b"\n")
    return [line for line in lines if not line.startswith(_PLACES)]


def pairs_info(
    workdir: pathlib.Path, saved: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The record of a run's pairs; for an older run from pairs.csv, without images.

    Args:
      workdir: the run's folder.
      saved: "pairs" of a checkpoint of the run; older ones have digest and store only.

    Returns:
      See `PairTable.info`.

    Raises:
      UserError: the checkpoint does not have all of it, and pairs.csv is missing or damaged.
    """
    saved = dict(saved or {})
    if "recipe" in saved:
        return saved
    path = workdir / "pairs.csv"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"Cannot read {path} ({error}), and no checkpoint records the pairs of the run: "
            "put the file back."
        ) from error
    header, rows = read_rows(path, content)
    next(rows, None)  # the names of the columns
    same = [row[:1] == row[1:2] for _, row in rows]
    if not same or not {"source", "fingerprint"} <= header.keys():
        raise UserError(
            f"{path} is not a table of a run, or is damaged: put the file back."
        )
    # Without the images the digest cannot be computed: the file's digest replaces it.
    digest = saved.get("digest") or header.get("digest")
    digest = digest or hashlib.sha256(content).hexdigest()
    source, recipe = read_origin(header, digest)
    return {
        "source": source,
        "recipe": recipe,
        "same": float(np.mean(same)),
        "digest": digest,
        "store": header["fingerprint"],
    }
