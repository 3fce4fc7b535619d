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
    """What a run is trained on: a store, its pairs, and batches of the images it shows."""

    images: ImageStore
    table: PairTable
    shown: ImageStore
    sampler: Sampler


def open_pairs(config: Any) -> TrainingPairs:
    """Open the images and the pairs of a training's config: its table, or drawn by its seed.

    Raises:
      UserError: the data do not fit.
    """
    data = config.data
    images = open_data(data)
    if data.pairs:
        table = load_table(data.pairs, images)
    elif data.pairing == "augmented" and np.all(images.labels < 0):
        table = pairing.own_pairs(images)
    else:
        table = pairing.semantic_pairs(images, rounds=data.rounds, seed=config.seed)
    shown, renumbered = pairing.only_shown(images, table, data.pairing)
    kind = data.pairing, data.semantic_fraction, data.semantic_schedule
    sampler = Sampler(renumbered, config.batch_size, config.seed, *kind)
    return TrainingPairs(images, table, shown, sampler)


def keep_pairs(
    workdir: pathlib.Path, table: PairTable, images: ImageStore, digest: str | None
) -> None:
    """Write pairs.csv, or check that a run that goes on still has the same pairs.

    Where the images lie may have changed: they and the pairs are known by fingerprints.

    Args:
      workdir: the run's folder.
      table: the pairs.
      images: the store that they point into.
      digest: of the pairs that the run began with; None if it begins now.

    Raises:
      UserError: the pairs or their images are others.
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
    """The lines of a table but for those that say where it and its images came from."""
    lines = path.read_bytes().split(b"\n")
    return [line for line in lines if not line.startswith(_PLACES)]


def pairs_info(
    workdir: pathlib.Path, saved: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a run's folder says of its pairs; of an older run from pairs.csv, without images.

    Args:
      workdir: the run's folder.
      saved: "pairs" of a checkpoint of the run; older ones say digest and store only.

    Returns:
      See `PairTable.info`.

    Raises:
      UserError: the checkpoint does not say all of it, and pairs.csv is missing or damaged.
    """
    saved = dict(saved or {})
    if "recipe" in saved:
        return saved
    path = workdir / "pairs.csv"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"Cannot read {path} ({error}), and no checkpoint says what the pairs of the run "
            "were: put the file back."
        ) from error
    header, rows = read_rows(path, content)
    next(rows, None)  # the names of the columns
    same = [row[:1] == row[1:2] for _, row in rows]
    if not same or not {"source", "fingerprint"} <= header.keys():
        raise UserError(f"{path} is no table of a run, or damaged: put the file back.")
    # Without the images the digest cannot be made anew: the file's stands for it.
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
