r"""Pairs without labels, in rounds: each encoder finds the pairs that the next one learns from.

    python -m eval.study --study=configs/studies/bootstrap.py \
        --study.stores.pretrain=folder:/data/images
    python -m eval.study --study=configs/studies/bootstrap.py:quick   # drawings, CPU

`--study.arms.round_1.changes.data.semantic_fraction=0.5` and the like change a round.
"""

from configs.studies import common

ROUNDS = 3
# Pairs and images without one (`--fill`) make an epoch: about the steps of the others.
EPOCHS = {"": None, "small": None, "quick": 12.0}
# What is alike: measured on drawings, see docs/results.md.
ALIKE = ("--scaling=whiten", "--fill")


def get_config(variant: str = ""):
    """SimCLR on augmentation pairs, then in rounds on pairs that the last encoder found."""
    study = common.get_study()
    common.add_data(study, variant)
    study.title = "Pairs without labels, in rounds"
    study.about = (
        "The first encoder learns from augmentation pairs. Its features, whitened, find mutual "
        "nearest neighbours; the encoder of the next round learns from these pairs, and from "
        "augmentation pairs of the images that have none; and so on. No label is read. "
        "Beside it are pairs of one class, by labels."
    )
    config = f"configs/simclr_resnet50.py{common.suffix(variant)}"
    if variant != "quick":
        study.stores.pairs = ""

    def add(name: str, title: str, data: dict, **more) -> None:
        epochs = EPOCHS[variant] if "after" in more else None
        changes = {"data": data, "epochs": epochs}
        study.arms[name] = common.arm(config, {"positives": title}, changes, **more)

    add("AP", "augmentations", {"pairing": "augmented"})
    before = "AP"
    for number in range(1, ROUNDS + 1):
        name = f"round_{number}"
        data = {"pairing": "mixed", "semantic_fraction": 1.0} | common.TABLE["data"]
        mine = common.mined_pairs(variant, *ALIKE)
        add(name, f"round {number}", data, prepare=(mine,), after=before)
        before = name
    add("label", "pairs of a class", {"pairing": "semantic"})
    study.measures["precision"] = common.measure("run/precision")
    headline = common.HEADLINES[variant]
    for number in range(1, ROUNDS + 1):
        name = f"round_{number}"
        text = f"Round {number} is better than augmentations."
        study.claims[name] = common.claim(text, headline, {name: 1.0, "AP": -1.0})
    text = "More rounds are better than one."
    terms = {f"round_{ROUNDS}": 1.0, "round_1": -1.0}
    study.claims["rounds"] = common.claim(text, headline, terms)
    study.figure = {"kind": "bars", "x": "positives"}
    return study
