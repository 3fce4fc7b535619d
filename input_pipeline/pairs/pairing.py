"""Make pair tables: from labels, from folders of two images, from other tables."""

import collections
import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Literal

import numpy as np
from absl import logging

from input_pipeline import text_files
from input_pipeline.pairs.origin import digest_names
from input_pipeline.pairs.table import PairTable
from input_pipeline.stores import ImageStore
from sp_jax.errors import UserError


def semantic_pairs(store: ImageStore, *, rounds: int = 1, seed: int) -> PairTable:
    """Pair different images of the same class.

    The k images of a class are placed on a circle in random order; round r pairs each image
    with the one r places further. So in a full round each image is `first` and `second` once,
    and no unordered pair occurs in two rounds: round r runs for r < k, r <= k/2, and at
    r = k/2 > 1 takes half of the circle. (For k = 2, round 1 gives (a, b) and (b, a).)

    Args:
      store: labelled images; unlabelled ones (-1) are left out.
      rounds: how many partners each image gets, where its class is large enough.
      seed: the table is a function of the store and this number.

    Returns:
      The pairs, round by round, within a round by class. Images that are alone in their class
      are left out, counted in `source`.

    Raises:
      UserError: rounds < 1, or no class has two images.
    """
    if rounds < 1:
        raise UserError(f"rounds must be at least 1, not {rounds}.")
    if unlabelled := int((store.labels < 0).sum()):
        logging.warning(
            "%d of %d images have no label and are in no pair.", unlabelled, len(store)
        )
    circles = _circles(store.labels, seed)
    alone = sum(len(circle) == 1 for circle in circles.values())
    if alone == len(circles):
        raise UserError(
            f"No class of {store.name!r}, split {store.split!r}, has two images, so "
            "there are no semantic pairs: sort the images into class folders, find pairs with "
            "input_pipeline.mine_pairs, or train on augmentation pairs "
            "(--config.data.pairing=augmented)."
        )
    if alone:
        names = [
            store.class_names[c] for c, circle in circles.items() if len(circle) == 1
        ]
        shown = ", ".join(names[:5]) + (", …" if alone > 5 else "")
        logging.warning(
            "%d of %d classes have only one image and are left out: %s.",
            *(alone, len(circles), shown),
        )
    parts = []
    for step in range(1, rounds + 1):
        for circle in circles.values():
            count = len(circle)
            if step <= count // 2:
                used = count // 2 if 1 < step == count / 2 else count
                parts.append([circle[:used], np.roll(circle, -step)[:used]])
    source = f"semantic pairs, rounds={rounds}, seed={seed}"
    if alone:
        source += f"; {alone} images alone in their class left out"
    recipe = {"by": "labels", "rounds": rounds}
    return PairTable.of(store, *np.concatenate(parts, axis=1), source, recipe)


def own_pairs(store: ImageStore) -> PairTable:
    """Pair each image with itself: augmentation pairs of a store without labels."""
    rows = np.arange(len(store))
    source = "each image with itself"
    return PairTable.of(store, rows, rows, source, {"by": "images"})


def augmented_pairs(
    table: PairTable, store: ImageStore, match: Literal["first", "both"] = "first"
) -> PairTable:
    """Pairs of an image with itself, for the comparison with a semantic table.

    Args:
      table: P semantic pairs.
      store: of the table. Where the label of a pair is that of its first image, the pair of
        the second image with itself has the label of the second.
      match: "first": P pairs of the first images, as in the paper: the same number of pairs,
        but half of the images if each is in one pair. "both": 2 P pairs, of the first images
        and then of the second: the same images, each as often as in the table.
    """
    columns = table.columns
    images = table.first
    if match == "both":
        images = np.concatenate([table.first, table.second])
        own = store.labels[table.second]
        own = np.where(table.label == store.labels[table.first], own, table.label)
        columns = {"label": np.concatenate([table.label, own])}
    columns |= {"first": images, "second": images}
    matched = "matched to" if match == "first" else "of both images of"
    source = f"augmentation pairs {matched}: {table.source}"
    recipe = {"by": "augmented", "match": match, "of": table.recipe}
    return dataclasses.replace(table, source=source, recipe=recipe, **columns)


def only_shown(
    store: ImageStore, table: PairTable, pairing: str
) -> tuple[ImageStore, PairTable]:
    """The store and the table without the images that training never shows, renumbered.

    For methods with a memory of each image: the row of one that is not shown would keep its
    random start.

    Args:
      store: the images of the table.
      table: pairs of the store.
      pairing: as in `sampling.Sampler`; "augmented" alone shows the first images only.
    """
    second = table.first if pairing == "augmented" else table.second
    shown, rows = np.unique(np.stack([table.first, second]), return_inverse=True)
    if len(shown) == len(store):
        return store, table
    store = store.take(shown)
    first, second = rows.reshape(2, -1)
    new = {"first": first, "second": second, "fingerprint": store.fingerprint}
    return store, dataclasses.replace(table, **new)


def class_pairs(
    store: ImageStore,
    pairs_per_class: int,
    *,
    seed: int,
    classes: Iterable[int] | None = None,
    allow_small: bool = False,
) -> PairTable:
    """The same number of semantic pairs in each class: the paper's setting.

    The images of a class are placed on a circle in random order. The first pairs are
    neighbours that share no image, so that every image is used at most once until the
    class runs out: with 2n images or more, n pairs hold 2n different images. Then come
    the pairs between these, then pairs two places apart, and so on; no pair comes twice.

    Args:
      store: labelled images.
      pairs_per_class: n; 0: as many as use each image once.
      seed: the table is a function of the store and the arguments.
      classes: class ids to use; None for all that have images.
      allow_small: whether a class with fewer than n different pairs gives what it has;
        `source` names how many did.

    Returns:
      The pairs, class by class in the order given.

    Raises:
      UserError: a class is too small, or a number is negative.
    """
    if pairs_per_class < 0:
        raise UserError(f"pairs_per_class must not be negative: {pairs_per_class}.")
    circles = _circles(store.labels, seed)
    chosen = None if classes is None else [int(c) for c in classes]
    parts, small = [], 0
    for c in circles if chosen is None else chosen:
        circle = circles.get(c, np.zeros(0, int))
        count = len(circle)
        wanted = pairs_per_class or count // 2
        most = count * (count - 1) // 2
        if most < max(wanted, 1):
            if not allow_small:
                images = "1 image" if count == 1 else f"{count} images"
                raise UserError(
                    f"Class {store.class_names[c]!r} has {images}, too few for "
                    f"{max(wanted, 1)} different pairs: lower --pairs_per_class, leave "
                    "it out of --classes, or accept fewer pairs with --allow_small."
                )
            small += 1
        parts.append(_around(circle, min(wanted, most)))
    if not parts:
        raise UserError(
            f"{store.name!r}, split {store.split!r}, has no labels: find pairs with "
            "input_pipeline.mine_pairs, or give a table of them with --pairs."
        )
    wanted = f"{pairs_per_class} pairs" if pairs_per_class else "pairs"
    source = f"{wanted} a class, {len(parts)} classes, seed={seed}"
    if small:
        source += f"; {small} classes have fewer"
    recipe = {"by": "labels", "pairs_per_class": pairs_per_class, "classes": None}
    if chosen is not None:
        recipe["classes"] = digest_names(store.class_names[c] for c in chosen)
    return PairTable.of(store, *np.concatenate(parts, axis=1), source, recipe)


def _circles(labels: np.ndarray, seed: int) -> dict[int, np.ndarray]:
    """The rows of each label in random order; those of negative labels are left out."""
    circles = {}
    for label, rows in _rows_by_label(labels).items():
        if label >= 0:
            # Raw bits: NumPy promises that these, not its permutations, never change.
            sequence = np.random.SeedSequence(seed, spawn_key=(label,))
            bits = np.random.PCG64(sequence).random_raw(len(rows))
            circles[label] = rows[np.argsort(bits, kind="stable")]
    return circles


def _rows_by_label(labels: np.ndarray) -> dict[int, np.ndarray]:
    order = np.argsort(labels, kind="stable")
    classes, starts = np.unique(labels[order], return_index=True)
    return dict(zip(classes.tolist(), np.split(order, starts[1:]), strict=True))


def _around(circle: np.ndarray, wanted: int) -> np.ndarray:
    """The first pairs on a circle, [2, n]: neighbours that share nothing come first."""
    count, pairs = len(circle), np.stack([circle[:0]] * 2)
    for step in range(1, count // 2 + 1):
        start = np.arange(count)
        if step == count / 2:
            start = start[: count // 2]
        elif step == 1:  # (0, 1), (2, 3) ..., one that is left over, (1, 2), (3, 4) ...
            left = start[count - count % 2 :]
            start = np.concatenate([start[:-1:2], left, start[1::2]])
        more = circle[[start, (start + step) % count]]
        pairs = np.concatenate([pairs, more], axis=1)
        if pairs.shape[1] >= wanted:
            break
    return pairs[:, :wanted]


def folder_pairs(store: ImageStore) -> PairTable:
    """Pair the two images of each folder, for curated pairs in folders of two.

    Args:
      store: of a folder; ids are relative paths.

    Raises:
      UserError: a folder holds another number of images.
    """
    groups: dict[str, list[int]] = {}
    for row, name in enumerate(store.ids):
        groups.setdefault(name.rpartition("/")[0], []).append(row)
    for name, rows in groups.items():
        if len(rows) != 2:
            raise UserError(
                f"The folder {name!r} of {store.name!r} has {len(rows)} images in split "
                f"{store.split!r}, not 2: put the two images of each pair into their own "
                "folder, and replace images that cannot be read."
            )
    first, second = np.array(list(groups.values())).T
    return PairTable.of(store, first, second, "two images a folder", {"by": "folders"})


def of_classes(
    table: PairTable, classes: Iterable[int], store: ImageStore
) -> PairTable:
    """The pairs of some classes."""
    classes = list(classes)
    names = digest_names(store.class_names[c] for c in classes)
    recipe = {"by": "classes", "classes": names, "of": table.recipe}
    which = np.isin(table.label, classes)
    return table.take(which, "the pairs of chosen classes of", recipe)


def within(table: PairTable, store: ImageStore, part: ImageStore) -> PairTable:
    """The pairs of a store whose images both lie in a part of it, as pairs of the part.

    Raises:
      UserError: there are none.
    """
    place = {name: row for row, name in enumerate(part.ids)}
    rows = np.array([place.get(name, -1) for name in store.ids])
    first, second = rows[table.first], rows[table.second]
    kept = np.flatnonzero((first >= 0) & (second >= 0))
    made_for = {
        "store": part.name,
        "split": part.split,
        "fingerprint": part.fingerprint,
    }
    return dataclasses.replace(
        table.take(kept, f"the pairs in {part.split} of"),
        first=first[kept],
        second=second[kept],
        **made_for,
    )


def subset(
    table: PairTable, pairs_per_class: int, *, allow_small: bool = False
) -> PairTable:
    """The first pairs of each class: smaller subsets lie within larger ones.

    Raises:
      UserError: a class has fewer pairs, and `allow_small` is false.
    """
    kept = []
    for c, rows in _rows_by_label(table.label).items():
        if len(rows) < pairs_per_class and not allow_small:
            which = f"of class number {c}" if c >= 0 else "without a label"
            raise UserError(
                f"There are {len(rows)} pairs {which}, not {pairs_per_class}: ask for "
                "fewer, or accept them with --allow_small."
            )
        kept.append(rows[:pairs_per_class])
    how = f"the first {pairs_per_class} pairs a class of"
    recipe = {"by": "first pairs", "pairs_per_class": pairs_per_class}
    recipe |= {"of": table.recipe}
    return table.take(np.sort(np.concatenate(kept)), how, recipe)


def mixed_pairs(table: PairTable, semantic_fraction: float, *, seed: int) -> PairTable:
    """Turn some pairs into augmentation pairs, about the same share in each class.

    The choice is fixed in the table; `data.pairing = "mixed"` chooses again for each
    pair in each step.

    Args:
      table: semantic pairs.
      semantic_fraction: share of all pairs that stay semantic, rounded. The share of a class
        differs from it by less than one pair.
      seed: chooses which.

    Raises:
      UserError: the fraction is not between 0 and 1.
    """
    if not 0.0 <= semantic_fraction <= 1.0:
        raise UserError(
            f"semantic_fraction must be between 0 and 1, not {semantic_fraction}."
        )
    second, before = np.array(table.first), 0
    for members in _circles(table.label + 1, seed).values():  # -1: without a label
        # What is rounded off in a class goes on to the next.
        after = before + len(members)
        most = round(semantic_fraction * after) - round(semantic_fraction * before)
        kept, before = members[:most], after
        second[kept] = table.second[kept]
    source = f"{semantic_fraction:g} semantic, seed={seed}, of: {table.source}"
    recipe = {"by": "mixed", "semantic_fraction": semantic_fraction}
    recipe |= {"of": table.recipe}
    return dataclasses.replace(table, second=second, source=source, recipe=recipe)


def read_classes(path: str, store: ImageStore) -> list[int]:
    """Read class ids from a file with one class per line: its name, or the name's first word.

    Empty lines and those that begin with # are skipped.

    Raises:
      UserError: the file is missing or not text, or names a class twice or an unknown one.
    """
    try:
        lines = text_files.read_lines(pathlib.Path(path).read_bytes(), path)
    except OSError as error:
        raise UserError(
            f"Cannot read the class list {path} ({error}): give a text file with one "
            "class per line."
        ) from error
    words = [name.split(" ")[0] for name in store.class_names]
    counts = collections.Counter(words)
    find, find_word = text_files.finder(store.class_names), text_files.finder(words)
    chosen = []
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        where = f"{path}, line {number}"
        found = find(line)
        if found is None:
            found = find_word(line)
            if found is not None and (count := counts[words[found]]) > 1:
                raise UserError(
                    f"{where}: {count} classes of {store.name!r} begin with {line!r}: "
                    "write the whole name."
                )
        if found is None:
            raise UserError(f"{where}: {store.name!r} has no class {line!r}.")
        if found in chosen:
            raise UserError(f"{where}: class {line!r} is there twice.")
        chosen.append(found)
    return chosen
