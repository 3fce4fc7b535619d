r"""Every method on semantic and on augmentation pairs, and what transfers: the main table.

    python -m eval.study --study=configs/studies/transfer.py \
        --study.stores.pretrain=folder:/data/imagenet187
    python -m eval.study --study=configs/studies/transfer.py:quick   # drawings, CPU
"""

from configs.studies import common

# NNCLR and SupCon, which find their semantic positives themselves, are in pair_sources.
METHODS = {
    "simclr": "SimCLR",
    "vicreg": "VICReg",
    "byol": "BYOL",
    "barlow_twins": "Barlow Twins",
    "deepcluster": "DeepCluster",
    "dino": "DINO",
    "moco_v2": "MoCo v2",
    "moco_v3": "MoCo v3",
    "pirl": "PIRL",
    "simsiam": "SimSiam",
    "swav": "SwAV",
}


def get_config(variant: str = ""):
    """ResNet-50, 64 px, 200 epochs; linear probes of the frozen features."""
    study = common.get_study()
    study.title = "Eleven methods on semantic and on augmentation pairs"
    study.about = (
        "Each method is trained twice, and only the pairs differ: two images of one class "
        "(SP), or two augmentations of one image (AP). The paper reports SimCLR, VICReg and "
        "BYOL and finds that features of SP transfer better; MoCo, PIRL, DeepCluster, SwAV, "
        "DINO, SimSiam and Barlow Twins are other methods of its field."
    )
    common.add_data(study, variant)
    for method, title in METHODS.items():
        for pairs in common.PAIRS:
            study.arms[f"{method}_{pairs}"] = common.arm(
                f"configs/{method}_resnet50.py{common.suffix(variant)}",
                {"method": title, "pairs": pairs},
                common.pairing(pairs),
            )
    if not variant:
        study.paper.simclr_SP = {"CIFAR-10": 83.60, "CIFAR-100": 59.58, "STL-10": 85.59}
        study.paper.simclr_AP = {"STL-10": 81.76}
    for method, title in METHODS.items():
        study.claims[method] = common.claim(
            f"{title} learns better features from SP than from AP.",
            common.HEADLINES[variant],
            {f"{method}_SP": 1.0, f"{method}_AP": -1.0},
            paper=3.83 if (method, variant) == ("simclr", "") else None,
        )
    study.figure = {"kind": "bars", "x": "method", "series": "pairs"}
    return study
