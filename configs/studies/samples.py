r"""Fewer pairs per class: does SP need many?

    python -m eval.study --study=configs/studies/samples.py \
        --study.stores.pretrain=folder:/data/imagenet187
    python -m eval.study --study=configs/studies/samples.py:quick   # drawings, CPU
"""

from configs.studies import common

# The drawings have at most five of a concept, so two pairs that use each once.
COUNTS = {"": (50, 100, 157), "small": (50, 100, 157), "quick": (1, 2)}
PAIRINGS = common.PAIRS | {"AP both": "both"}
# Of both images, half of the epochs are as many steps, also for the warm-up.
HALVED = {
    "": {"epochs": 100.0, "optimizer": {"warmup_epochs": 5.0}},
    "small": {"epochs": 25.0, "optimizer": {"warmup_epochs": 5.0}},
    "quick": {"epochs": 12.5, "optimizer": {"warmup_epochs": 0.5}},
}


def get_config(variant: str = ""):
    """SimCLR on SP and two matches of AP; the same number of epochs for all counts."""
    study = common.get_study()
    common.add_data(study, variant)
    study.title = "Fewer pairs a class"
    study.about = (
        "SimCLR on semantic (SP) and augmentation pairs (AP) with fewer pairs of each class "
        "and the same number of epochs, so in fewer steps. There are two matches of SP: AP, as "
        "in the paper, is of the first images of the same pairs, so of half of the images; "
        "AP both is of all images, in half as many epochs, so in as many steps. In the paper "
        "the gain of SP is as large with 50 pairs as with 157."
    )
    if variant == "quick":
        study.changes.epochs = 25.0
    counts = COUNTS[variant]
    for count in counts:
        for pairs, pairing in PAIRINGS.items():
            changes = {"data": common.TABLE["data"] | {"pairing": pairing}}
            changes |= HALVED[variant] if pairing == "both" else {}
            study.arms[f"{pairs}_{count}".replace(" ", "_")] = common.arm(
                f"configs/simclr_resnet50.py{common.suffix(variant)}",
                {"pairs a class": str(count), "pairs": pairs},
                changes,
                prepare=(common.pairs_of_class(variant, count),),
            )
    papers = {50: 4.20, 157: 3.83}
    for count in counts:
        with_pairs = f"with {count} pair{'s' if count > 1 else ''} a class"
        study.claims[f"at_{count}"] = common.claim(
            f"SP is better than AP {with_pairs}.",
            common.HEADLINES[variant],
            {f"SP_{count}": 1.0, f"AP_{count}": -1.0},
            paper=None if variant else papers.get(count),
        )
        study.claims[f"both_{count}"] = common.claim(
            f"SP is better than AP of both images {with_pairs}.",
            common.HEADLINES[variant],
            {f"SP_{count}": 1.0, f"AP_both_{count}": -1.0},
        )
    few, many = counts[0], counts[-1]
    study.claims.fewer = common.claim(
        f"It gains more with {few} than with {many}.",
        common.HEADLINES[variant],
        {f"SP_{few}": 1.0, f"AP_{few}": -1.0, f"SP_{many}": -1.0, f"AP_{many}": 1.0},
        paper=None if variant else papers[few] - papers[many],
    )
    study.figure = {"kind": "lines", "x": "pairs a class", "series": "pairs"}
    return study
