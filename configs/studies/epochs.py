"""SimCLR for 200, 400 and 800 epochs: does longer training close the gap?

    python -m eval.study --study=configs/studies/epochs.py \
        --study.stores.pretrain=folder:/data/imagenet187
    python -m eval.study --study=configs/studies/epochs.py:quick     # drawings, CPU
"""

from configs.studies import common

EPOCHS = {"": (200, 400, 800), "small": (10, 20, 40), "quick": (3, 6, 12)}


def get_config(variant: str = ""):
    """SimCLR on SP and AP; `:small` and `:quick` have their own lengths."""
    study = common.get_study()
    common.add_data(study, variant)
    if variant == "small":
        del study.changes.epochs
        study.changes.optimizer.warmup_epochs = 1.0  # of as few as ten
    study.title = "Longer training"
    study.about = (
        "SimCLR on semantic (SP) and augmentation pairs (AP), for several numbers of "
        "epochs. In the paper both gain from longer training, and the difference stays."
    )
    lengths = EPOCHS[variant]
    for epochs in lengths:
        for pairs in common.PAIRS:
            study.arms[f"{pairs}_{epochs}"] = common.arm(
                f"configs/simclr_resnet50.py{common.suffix(variant)}",
                {"epochs": str(epochs), "pairs": pairs},
                {"epochs": float(epochs), **common.pairing(pairs)},
            )
    headline = common.HEADLINES[variant]
    if not variant:
        study.paper.SP_200 = {"CIFAR-10": 83.60, "CIFAR-100": 59.58, "STL-10": 85.59}
        study.paper.AP_200 = {"STL-10": 81.76}
        # Of AP after 800 epochs it gives a range; the claim below has its middle.
        study.paper.SP_800 = {"STL-10": 86.56}
    first, last = lengths[0], lengths[-1]
    study.claims.first = common.claim(
        f"After {first} epochs SP is better than AP.",
        headline,
        {f"SP_{first}": 1.0, f"AP_{first}": -1.0},
        paper=None if variant else 3.83,
    )
    study.claims.last = common.claim(
        f"After {last} epochs SP is still better than AP.",
        headline,
        {f"SP_{last}": 1.0, f"AP_{last}": -1.0},
        paper=None if variant else 3.75,
    )
    study.claims.longer = common.claim(
        "SP gains from longer training.",
        headline,
        {f"SP_{last}": 1.0, f"SP_{first}": -1.0},
        paper=None if variant else 0.97,
    )
    study.figure = {"kind": "lines", "x": "epochs", "series": "pairs"}
    return study
