r"""Pairs without labels, in rounds: each encoder finds the pairs that the next one learns from.

    python -m eval.study --study=configs/studies/bootstrap.py \
        --study.stores.pretrain=folder:/data/images
    python -m eval.study --study=configs/studies/bootstrap.py:quick   # drawings, CPU

Images without labels: --arms=AP,round_1,round_2,round_3, since only the arm `label` needs them.
An encoder's maps are compared in parts, on four levels (`mine_pairs --levels`): docs/data.md.
"""

from configs.studies import common

ROUNDS = 3


def get_config(variant: str = ""):
    """SimCLR on augmentation pairs, then in rounds on pairs that the last encoder found."""
    study = common.get_study()
    common.add_data(study, variant)
    study.title = "Pairs without labels, in rounds"
    study.about = (
        "The first encoder learns from augmentation pairs. Images that are mutual nearest "
        "neighbours for it are the pairs from which the encoder of the next round learns, and "
        "so on. No label is read. Pairs of one class, by labels, are there to compare with."
    )
    if variant != "quick":
        study.stores.pairs = ""
    study.measures["precision"] = common.measure("run/precision")
    headline = common.HEADLINES[variant]
    config = f"configs/simclr_resnet50.py{common.suffix(variant)}"

    def add(name: str, title: str, changes: dict, **more) -> None:
        study.arms[name] = common.arm(config, {"positives": title}, changes, **more)

    add("AP", "augmentations", common.pairing("AP"))
    data = common.pairing("SP")["data"] | common.TABLE["data"]
    mined = {"data": data, "epochs": common.LEVELS_EPOCHS[variant]}
    mine = common.mined_pairs(variant, *common.BY_LEVELS)
    before = "AP"
    for number in range(1, ROUNDS + 1):
        name = f"round_{number}"
        add(name, f"round {number}", mined, prepare=(mine,), after=before)
        text = f"Round {number} is better than augmentations."
        study.claims[name] = common.claim(text, headline, {name: 1.0, "AP": -1.0})
        before = name
    add("label", "pairs of a class", common.pairing("SP"))
    text = "More rounds are better than one."
    terms = {f"round_{ROUNDS}": 1.0, "round_1": -1.0}
    study.claims["rounds"] = common.claim(text, headline, terms)
    study.figure = {"kind": "bars", "x": "positives"}
    return study
