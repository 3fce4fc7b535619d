r"""Where the positives come from: labels, mining, both kinds mixed, or the method itself.

    python -m eval.study --study=configs/studies/pair_sources.py \
        --study.stores.pretrain=folder:/data/imagenet187 --study.stores.pairs=curated.csv
    python -m eval.study --study=configs/studies/pair_sources.py:quick   # drawings, CPU
"""

from configs.studies import common

FRACTIONS = (0.25, 0.5, 0.75)
# The miner finds as many pairs as it finds (docs/results.md): about the steps of the others.
MINED_EPOCHS = {"": 130.0, "small": 33.0, "quick": 14.0}


def get_config(variant: str = ""):
    """SimCLR on each source; NNCLR and SupCon, which find positives in the batch or a queue."""
    study = common.get_study()
    common.add_data(study, variant)
    if not variant:
        study.stores.pairs = "data/curated.csv"
    study.title = "Where positives come from"
    study.about = (
        "SimCLR on augmentation pairs, on pairs of one class, on both mixed, and on pairs that "
        "a SimCLR of augmentation pairs has found without labels: mutual nearest neighbours by "
        "its features, or by its maps in parts, on four levels. "
        "Beside it two methods that make semantic positives on their own, both on "
        "augmentation pairs: SupCon (all images of a class in the batch; it reads labels) and "
        "NNCLR (the nearest neighbour in a queue)."
    )
    variant_of = common.suffix(variant)
    simclr = f"configs/simclr_resnet50.py{variant_of}"

    def add(
        name: str, title: str, config: str, pairing: str, data=None, epochs=None, **more
    ) -> None:
        changes = {"data": {"pairing": pairing} | (data or {}), "epochs": epochs}
        study.arms[name] = common.arm(config, {"positives": title}, changes, **more)

    by_label = {} if variant == "quick" else {"pairs": ""}
    add("AP", "augmentations", simclr, "augmented")
    if variant == "":
        add("curated", "curated pairs", simclr, "semantic")
    for fraction in FRACTIONS:
        data = {"semantic_fraction": fraction}
        add(
            f"mixed_{round(100 * fraction)}",
            f"{fraction:.0%} pairs of a class",
            simclr,
            "mixed",
            data=data | by_label,
        )
    add("label", "pairs of a class", simclr, "semantic", data=by_label)
    add(
        "mined",
        "mined pairs",
        simclr,
        "semantic",
        epochs=MINED_EPOCHS[variant],
        data=common.TABLE["data"],
        prepare=(common.mined_pairs(variant, *common.BY_FEATURES),),
        after="AP",
    )
    add(
        "mined_levels",
        "mined by levels",
        simclr,
        "semantic",
        epochs=common.LEVELS_EPOCHS[variant],
        data=common.TABLE["data"],
        prepare=(common.mined_pairs(variant, *common.BY_LEVELS),),
        after="AP",
    )
    add("supcon", "SupCon", f"configs/supcon_resnet50.py{variant_of}", "augmented")
    add("nnclr", "NNCLR", f"configs/nnclr_resnet50.py{variant_of}", "augmented")
    study.measures["precision"] = common.measure("run/precision")
    headline = common.HEADLINES[variant]
    for name, text in {
        "label": "Pairs of a class are better than augmentations.",
        "mixed_50": "Half of them is enough to be better than augmentations.",
        "mined": "Pairs that nobody labelled are better than augmentations.",
        "mined_levels": "So are those that are found by levels.",
        "supcon": "So is SupCon.",
        "nnclr": "So is NNCLR.",
    }.items():
        study.claims[name] = common.claim(text, headline, {name: 1.0, "AP": -1.0})
    study.figure = {"kind": "bars", "x": "positives"}
    return study
