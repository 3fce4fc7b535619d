"""Find out what a user's own images allow: the pairs, and the images to evaluate on."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from configs.studies import own
from configs.studies.own import Found
from input_pipeline.pairs import load_table, save_table
from input_pipeline.pairs.pairing import within
from input_pipeline.stores import ImageStore, open_store
from sp_jax.errors import UserError

FIT, TEST = 5_000, 4_000  # largest numbers of images to evaluate features on


def look(asked: Mapping[str, Any], out: pathlib.Path) -> Found:
    """Find out which study the images allow.

    Args:
        asked: as `configs.studies.own.get_config` says.
        out: where the pairs of a given table are written without those that are held out.

    Raises:
        UserError: there are too few images, or no images to evaluate features on.
    """
    if not asked["images"]:
        raise UserError("Name your photographs, as in --study.images=folder:PHOTOS.")
    if asked["baseline"] and not pathlib.Path(asked["baseline"]).is_file():
        raise UserError(f"There is no file of weights {asked['baseline']!r}.")
    store = open_store(asked["images"], image_size=own.IMAGE_SIZE)
    split = "train" if "train" in store.splits else "all"
    test = asked["test"] or asked["images"]
    fit_split, test_split = _find_test(test, "=0.5" if asked["test"] else "")
    if not asked["test"] and fit_split != "train":
        split = fit_split
    whole, part = _open(store.name, split.partition(":")[0]), _open(store.name, split)
    if not asked["test"] and np.all(part.labels < 0):
        raise UserError(
            f"No image of {store.name} has a label, so its features cannot be evaluated: "
            "name labelled images, as in --study.test=folder:OTHER."
        )
    labelled = np.bincount(part.labels[part.labels >= 0])
    table, shown, mined = "", int(labelled[labelled > 1].sum()), False
    classes = f"{len(part):,} images of {np.count_nonzero(labelled)} classes"
    if asked["pairs"]:
        table = str(pathlib.Path(asked["pairs"]).absolute())
        given = load_table(table, whole)
        if len(part) < len(whole):
            table = str(out.absolute() / "pairs.csv")
            save_table(table, given := within(given, whole, part), part)
        pairs = shown = len(given)
        words = (
            f"the {pairs:,} pairs of {pathlib.Path(asked['pairs']).name}, AP views of their "
            "first images."
        )
    elif len(labelled):
        pairs, words = shown, f"each of {shown:,} images with another of its class."
    else:
        # Wherever pairs were mined, there were more than half as many as images.
        pairs, shown, mined = len(part) // 3, len(part), True
        classes = f"{len(part):,} images without labels"
        words = (
            f"the best {pairs:,} pairs of nearest neighbours that the AP run of the same seed "
            "finds."
        )
    if min(pairs, shown) < 32:
        raise UserError(
            f"{store.name} gives {min(pairs, shown)} pairs of {len(part)} images, which are "
            "too few to learn from: a study needs at least 32, and better thousands."
        )
    fit, held = _cut(_open(test, fit_split), FIT), _cut(_open(test, test_split), TEST)
    sentences = [f"Trained on {classes}. SP: {words}"]
    sentences.append(
        f"Evaluated on {test}: fitted on {len(fit):,} images ({fit.split}), tested on "
        f"{len(held):,} ({held.split})."
    )
    known = set(map(bytes, part.digests))
    if same := sum(bytes(one) in known for one in held.digests):
        sentences.append(f"{same:,} of the test images are also training images.")
    return Found(
        *(split, pairs, shown, table, mined),
        *(test, fit.split, held.split, part.fingerprint, tuple(sentences)),
    )


def _open(name: str, split: str) -> ImageStore:
    return open_store(name, split, image_size=own.IMAGE_SIZE)


def _find_test(name: str, share: str) -> tuple[str, str]:
    """The splits to fit on and to test on: the store's own, or a held-out share ("=0.5")."""
    splits = open_store(name, image_size=own.IMAGE_SIZE).splits
    for test in ("test", "val"):
        if {"train", test} <= set(splits):
            return "train", test
    whole = "train" if "train" in splits else "all"
    return f"{whole}:rest{share}", f"{whole}:holdout{share}"


def _cut(store: ImageStore, most: int) -> ImageStore:
    """The images, or about `most` of them, with the same share of each class."""
    if len(store) <= most:
        return store
    return _open(store.name, f"{store.split}:holdout={most / len(store):.4f}")
