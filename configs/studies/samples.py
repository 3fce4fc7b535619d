r"""Fewer pairs a class: does SP need many?

    python -m eval.study --study=configs/studies/samples.py \
        --study.stores.pretrain=folder:/data/imagenet187
    python -m eval.study --study=configs/studies/samples.py:quick   # drawings, CPU
"""

from configs.studies import common

# The drawings have at most five of a concept, so two pairs that use each once.
COUNTS = {"": (50, 100, 157), "small": (50, 100, 157), "quick": (1, 2)}


def get_config(variant: str = ""):
    """SimCLR on SP and AP; all arms have the same number of epochs, as in the paper."""
    study = common.get_study()
    common.add_data(study, variant)
    study.title = "Fewer pairs a class"
    study.about = (
        "SimCLR on semantic (SP) and augmentation pairs (AP) with fewer pairs of each class "
        "and the same number of epochs, so in fewer steps. AP sees the first images of the "
        "same pairs. In the paper the gain of SP is as large with 50 pairs as with 157."
    )
    if variant == "quick":
        study.changes.epochs = 25.0
    counts = COUNTS[variant]
    for count in counts:
        for pairs in common.PAIRS:
            changes = {"data": common.TABLE["data"] | common.pairing(pairs)["data"]}
            study.arms[f"{pairs}_{count}"] = common.arm(
                f"configs/simclr_resnet50.py{common.suffix(variant)}",
                {"pairs a class": str(count), "pairs": pairs},
                changes,
                prepare=(common.pairs_of_class(variant, count),),
            )
    papers = {50: 4.20, 157: 3.83}
    for count in counts:
        study.claims[f"at_{count}"] = common.claim(
            f"SP is better than AP with {count} pair{'s' if count > 1 else ''} a class.",
            common.HEADLINES[variant],
            {f"SP_{count}": 1.0, f"AP_{count}": -1.0},
            paper=None if variant else papers.get(count),
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
