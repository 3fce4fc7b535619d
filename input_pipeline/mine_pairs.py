r"""Find semantic pairs without labels: mutual nearest neighbours by an encoder.

    python -m input_pipeline.mine_pairs --store=folder:/data/images \
        --checkpoint=runs/ap --out=mined.csv

The encoder is a checkpoint of this project (say, trained on augmentation pairs of the same
images), any other one by --features=FILE.npy (numbers [N, D], rows as in the store), or without
both a hand-made descriptor of shapes and colours. Of a checkpoint the maps are compared, in
parts and on four levels: this finds more than twice as many right pairs as its features
(docs/results.md#mined-pairs).

    --levels=False   compare the features of the checkpoint, not its maps
    --whiten         give each principal component of the features the same variance
    --approximate    find neighbours with an index, for hundreds of thousands of images

Two files are written beside OUT: .json has the printed numbers, and .png shows some pairs. If
the store has labels, the pairs are compared with them: OUT-precision.png. The table has a
column `score`, and the best pair comes first; its column `label` is of the first image. Train
with --config.data.pairs=OUT.
"""

import pathlib

import numpy as np
from absl import flags

from input_pipeline.mining import mutual_neighbours
from input_pipeline.mining.features import find_features
from input_pipeline.mining.whiten import whitening
from input_pipeline.pairs import summary
from input_pipeline.pairs.table import PairTable
from input_pipeline.stores import flags as given
from sp_jax import cli, extras
from sp_jax.errors import UserError

flags.adopt_module_key_flags(given)  # --help lists them
_OUT = flags.DEFINE_string("out", None, "CSV file to write.", required=True)
_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Run or checkpoint: the encoder.")
_FEATURES = flags.DEFINE_string(
    "features", None, "Features from another program: FILE.npy."
)
_NEIGHBOURS = flags.DEFINE_integer(
    "neighbours", 3, "Pair images that are both among the other's K nearest.", 1
)
_LEVELS = flags.DEFINE_bool(
    "levels",
    None,
    "Compare the maps of the checkpoint in parts, on four levels, instead of its features; "
    "the default where it has maps.",
)
_WHITEN = flags.DEFINE_bool(
    "whiten", False, "Give each principal component of the features the same variance."
)
_APPROXIMATE = flags.DEFINE_bool(
    "approximate",
    False,
    "Find neighbours with an index of faiss. It misses some; the share is measured.",
)
_LEAST = flags.DEFINE_float("min_similarity", -1.0, "Smallest cosine of a pair.")
_MOST = flags.DEFINE_float("max_similarity", 1.0, "Largest cosine of a pair.")
_USES = flags.DEFINE_integer("max_uses", 3, "Pairs that an image may be in.", 1)
_WITHIN = flags.DEFINE_string(
    "within", None, "Pair only images that share this: label, or an attribute."
)
_TARGET = flags.DEFINE_string(
    "target", "label", "Label or attribute to compare the pairs with."
)


def mine() -> None:
    """Find the pairs, and write them with their numbers and pictures."""
    out = summary.csv_path(_OUT.value)
    if _LEVELS.value and not _CHECKPOINT.value:
        raise UserError("--levels needs the maps of an encoder: give --checkpoint.")
    band = _LEAST.value, _MOST.value
    if not band[0] <= band[1]:
        raise UserError(
            f"--min_similarity={band[0]:g} is above --max_similarity={band[1]:g}: no pair "
            "can lie between them."
        )
    # Now, as the features may take hours.
    if _CHECKPOINT.value and _LEVELS.value is not False:
        extras.require("eval", "Comparing an encoder's maps (unless --levels=False)")
    if _WHITEN.value:
        extras.require("eval", "--whiten")
    if _APPROXIMATE.value:
        extras.require("faiss", "--approximate")
    store = given.open_from_flags()
    summary.check_place(out, store)
    target = store.target(_TARGET.value)[0]
    groups = np.zeros(len(store), int)
    if _WITHIN.value:
        groups += store.target(_WITHIN.value)[0]
        if np.bincount(groups[groups >= 0], minlength=1).max() < 2:
            raise UserError(
                f"No two images of {store.name}, split {store.split}, have the same "
                f"{_WITHIN.value}, so there is nothing to stay within: leave --within out."
            )
    # First, because a wrong checkpoint or file shows at once.
    encoder = _CHECKPOINT.value, _FEATURES.value, _LEVELS.value
    features, made_by = find_features(store, *encoder)
    blank = summary.blank(store, np.arange(len(store)))
    blank |= ~features.any(axis=1)  # A row of zeros has no cosine.
    if len(store) - blank.sum() < 2:
        raise UserError(
            f"{store.name}, split {store.split}, has no two images to pair: {blank.sum()} of "
            f"its {len(store)} images have no contrast, or features of zeros."
        )
    # Unlabelled images do not form a class, and a blank one has no pair.
    alone = np.flatnonzero((groups < 0) | blank)
    groups[alone] = groups.max() + 1 + np.arange(len(alone))
    if _WHITEN.value:
        mean, matrix = whitening(features)
        if not matrix.shape[1]:
            raise UserError(
                "--whiten: the features of all images are equal, so they cannot be compared: "
                "give another encoder."
            )
        features = (features - mean) @ matrix
    # They start jax: late.
    from input_pipeline.mining import approximate
    from sp_jax import neighbours

    k = min(_NEIGHBOURS.value, len(features) - 1)
    index = approximate if _APPROXIMATE.value else neighbours
    found = index.nearest_others(features, k, groups)
    first, second, score = mutual_neighbours.mutual_pairs(*found, band=band)
    copies = summary.near_duplicates(store, first, second)
    if copies.all():
        raise UserError(
            f"All {len(copies)} pairs are near-duplicates: raise --neighbours, or "
            "remove the copies from the images."
        )
    first, second, score = first[~copies], second[~copies], score[~copies]
    taken = mutual_neighbours.limit_uses(first, second, _USES.value)
    first, second, score = first[taken], second[taken], score[taken]
    named = _CHECKPOINT.value or _FEATURES.value or "shapes and colours"
    source = f"mutual {_NEIGHBOURS.value} nearest neighbours by {named}"
    recipe = {
        "by": "mined",
        "neighbours": _NEIGHBOURS.value,
        "min_similarity": _LEAST.value,
        "max_similarity": _MOST.value,
        "max_uses": _USES.value,
        "within": _WITHIN.value,
        "encoder": made_by,
    }
    # Only what is not as it was before there was a choice: a recipe tells runs apart.
    recipe |= {
        flag.name: flag.value
        for flag in (_WHITEN, _APPROXIMATE)
        if flag.value != flag.default
    }
    numbers = {
        "blank_images_left_out": int(blank.sum()),
        "near_duplicates_left_out": int(copies.sum()),
        "scores": [float(score.min()), float(score.max())],
    }
    if _APPROXIMATE.value:
        numbers["recall_of_neighbours"] = approximate.recall(features, found[0], groups)
    known = (target[first] >= 0) & (target[second] >= 0)
    picture = None
    if known.any():
        same = (target[first] == target[second])[known]
        numbers["right_pairs"] = int(same.sum())
        numbers["precision"] = float(same.mean())
        numbers["chance"] = mutual_neighbours.chance(target[(target >= 0) & ~blank])
        picture = out.with_name(f"{out.stem}-precision.png")
    table = PairTable.of(store, first, second, source, recipe)
    summary.write_table(out, table, store, score, **numbers)
    if picture:  # after the table, which matters more
        draw_precision(picture, score[known], same, numbers["chance"])
        print(f"{picture} shows how many pairs are right, by their score")


def draw_precision(
    path: pathlib.Path, score: np.ndarray, same: np.ndarray, chance: float
) -> None:
    """Draw the share of right pairs among the best n, and by score."""
    import matplotlib.pyplot as plt

    # One above the other, to be readable on a small screen, too.
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(6, 7), layout="constrained")
    upper.plot(np.arange(1, len(same) + 1), mutual_neighbours.precision_curve(same))
    upper.set(xlabel="number of pairs, best first", ylabel="precision")
    upper.set_title(f"{len(same):,} pairs of images with a label", fontsize=10)
    # Twenty groups of as many pairs.
    groups = [g for g in np.array_split(np.arange(len(same)), 20) if len(g)]
    means = [[x[g].mean() for g in groups] for x in (score, same)]
    lower.plot(*means, ".-")
    lower.set(xlabel="score (cosine)", ylabel="precision")
    sizes = sorted({len(group) for group in groups})
    size = " or ".join(f"{size:,}" for size in sizes)
    lower.set_title(f"{len(groups)} groups of {size} pairs", fontsize=10)
    line = {"color": "gray", "linestyle": "--", "label": f"chance, {chance:.2g}"}
    for axes in (upper, lower):
        axes.axhline(chance, **line)
        axes.grid(alpha=0.3)
    upper.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    cli.run(mine)
