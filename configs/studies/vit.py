r"""DINO with a vision transformer, ViT-S/8, on semantic and on augmentation pairs.

    python -m eval.study --study=configs/studies/vit.py \
        --study.stores.pretrain=folder:/data/imagenet187
    python -m eval.study --study=configs/studies/vit.py:quick   # drawings, CPU
"""

from configs.studies import common


def get_config(variant: str = ""):
    """`configs/dino_vit.py` on SP and AP; linear probes of the class token."""
    study = common.get_study()
    common.add_data(study, variant)
    study.title = "DINO with a vision transformer"
    study.about = (
        "DINO and ViT-S/8 on semantic (SP) and augmentation pairs (AP): does the gain depend "
        "on the architecture?"
    )
    for pairs in common.PAIRS:
        study.arms[pairs] = common.arm(
            f"configs/dino_vit.py{common.suffix(variant)}",
            {"pairs": pairs},
            common.pairing(pairs),
        )
    titles = {"quick": ("probe category", "retrieval"), "small": ("CIFAR-10",)}
    gains: dict[str, float | None] = dict.fromkeys(titles.get(variant, ()))
    if not variant:
        study.paper.SP = {"CIFAR-10": 81.8, "CIFAR-100": 65.3, "STL-10": 82.1}
        study.paper.AP = {"CIFAR-10": 81.1, "CIFAR-100": 64.5, "STL-10": 79.2}
        gains = {"CIFAR-10": 0.7, "CIFAR-100": 0.8, "STL-10": 2.9}
    for title, gain in gains.items():
        study.claims[title] = common.claim(
            f"SP is better than AP on {title}.",
            title,
            {"SP": 1.0, "AP": -1.0},
            paper=gain,
        )
    study.figure = {"kind": "bars", "x": "pairs"}
    return study
