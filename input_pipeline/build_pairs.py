r"""Make a pair table, and show what is in it.

    # Semantic pairs, as in the paper; then augmentation pairs for the comparison.
    python -m input_pipeline.build_pairs --store=folder:/data/imagenet --split=train \
        --classes=classes.txt --pairs_per_class=157 --out=sp.csv
    python -m input_pipeline.build_pairs --store=folder:/data/imagenet --split=train \
        --pairs=sp.csv --kind=augmented --out=ap.csv

    --kind=augmented --match=both           both images of each pair, not only the first
    --pairs=sp.csv --pairs_per_class=50     the small-sample ablation: 50 pairs per class
    --pairs=sp.csv --kind=mixed             half semantic, half augmentation pairs
    --pairs=curated.csv                     your own list: first,second,label
    --pair_folders                          each folder holds the two images of a pair

Two files are written beside OUT: .json has the printed numbers, and .png shows some of the
pairs: look at them. Train with --config.data.pairs=OUT and the same store and split.
"""

import pathlib

from absl import flags

from input_pipeline import pairs
from input_pipeline.pairs import pairing, summary
from input_pipeline.pairs.table import PairTable
from input_pipeline.stores import ImageStore
from input_pipeline.stores import flags as given
from sp_jax import cli
from sp_jax.errors import UserError

flags.adopt_module_key_flags(given)  # --help lists them
_OUT = flags.DEFINE_string("out", None, "CSV file to write.", required=True)
_PAIRS = flags.DEFINE_string("pairs", None, "CSV of pairs to start from.")
_PAIR_FOLDERS = flags.DEFINE_bool(
    "pair_folders", False, "Start from folders of two images each."
)
_PER_CLASS = flags.DEFINE_integer(
    "pairs_per_class", 0, "Pairs per class; 0: as many as use each image once.", 0
)
_CLASSES = flags.DEFINE_string("classes", None, "File with one class per line.")
_SMALL = flags.DEFINE_bool(
    "allow_small", False, "Accept fewer pairs from classes that are too small."
)
_KIND = flags.DEFINE_enum(
    "kind", "semantic", ("semantic", "augmented", "mixed"), "Kind of the pairs."
)
_MATCH = flags.DEFINE_enum(
    "match",
    "first",
    ("first", "both"),
    "With --kind=augmented: use the first or both images of each pair.",
)
_FRACTION = flags.DEFINE_float(
    "semantic_fraction", 0.5, "With --kind=mixed: the share of semantic pairs."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of all random choices.", 0)


def build() -> None:
    """Make the table, and write it with its numbers and picture."""
    out = summary.csv_path(_OUT.value)
    if _PAIRS.value and out.resolve() == pathlib.Path(_PAIRS.value).resolve():
        raise UserError(
            "--out would replace the table of --pairs: choose another name."
        )
    for flag, kind in ((_MATCH, "augmented"), (_FRACTION, "mixed")):
        if flag.present and _KIND.value != kind:
            raise UserError(
                f"--{flag.name} is for --kind={kind}, but the kind is {_KIND.value}: give "
                "the kind, or leave the flag out."
            )
    store = given.open_from_flags()
    summary.check_place(out, store)
    table = semantic_table(store)
    if _KIND.value == "augmented":
        table = pairing.augmented_pairs(table, store, _MATCH.value)
    elif _KIND.value == "mixed":
        table = pairing.mixed_pairs(table, _FRACTION.value, seed=_SEED.value)
    summary.write_table(out, table, store)


def semantic_table(store: ImageStore) -> PairTable:
    """The table to start from."""
    if _PAIRS.value and _PAIR_FOLDERS.value:
        raise UserError("Give --pairs or --pair_folders, not both.")
    classes = pairing.read_classes(_CLASSES.value, store) if _CLASSES.value else None
    small = {"allow_small": _SMALL.value}
    if not (_PAIRS.value or _PAIR_FOLDERS.value):
        return pairing.class_pairs(
            store, _PER_CLASS.value, seed=_SEED.value, classes=classes, **small
        )
    if _PAIRS.value:
        table = pairs.load_table(_PAIRS.value, store)
    else:
        table = pairing.folder_pairs(store)
    if classes is not None:
        table = pairing.of_classes(table, classes, store)
    if _PER_CLASS.value:
        table = pairing.subset(table, _PER_CLASS.value, **small)
    return table


if __name__ == "__main__":
    cli.run(build)
