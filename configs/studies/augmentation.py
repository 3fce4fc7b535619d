r"""The value of each augmentation for SP and AP, from all of them down to crops alone.

    python -m eval.study --study=configs/studies/augmentation.py \
        --study.stores.pretrain=folder:/data/imagenet187
    python -m eval.study --study=configs/studies/augmentation.py:quick   # drawings, CPU
"""

from configs.studies import common

# All operations but random crops and flips.
_OFF = {
    "grayscale": {"grayscale": 0.0},
    "colour": {"jitter": 0.0, "grayscale": 0.0},
    "blur": {"blur": 0.0},
    "crop only": {"jitter": 0.0, "grayscale": 0.0, "blur": 0.0, "solarize": 0.0},
}
CHANGES = {"all": {}} | {
    name if name == "crop only" else f"no {name}": change
    for name, change in _OFF.items()
}


def get_config(variant: str = ""):
    """SimCLR on SP and AP, five augmentations each."""
    study = common.get_study()
    common.add_data(study, variant)
    study.title = "Fewer augmentations"
    study.about = (
        "SimCLR on semantic (SP) and augmentation pairs (AP) with less and less "
        "augmentation. The two images of a semantic pair differ by themselves, so the "
        "paper finds that SP needs augmentation less. Crop only keeps random crops and flips."
    )
    if variant == "quick":
        # The quick recipe has no blur, which would leave nothing to switch off.
        study.changes.augment = {"blur": 0.5}
    for name, change in CHANGES.items():
        for pairs in common.PAIRS:
            key = f"{pairs}_{name.replace(' ', '_')}"
            study.arms[key] = common.arm(
                f"configs/simclr_resnet50.py{common.suffix(variant)}",
                {"augmentation": name, "pairs": pairs},
                {"augment": change, **common.pairing(pairs)},
            )
    # The paper does not say on which set; its figures are taken as those of STL-10.
    headline = common.HEADLINES[variant]
    if not variant:
        study.paper.SP_crop_only = {"STL-10": 64.23}
        study.paper.AP_crop_only = {"STL-10": 24.25}
    study.claims.grayscale_AP = common.claim(
        "Without grayscale AP loses much.",
        headline,
        {"AP_all": 1.0, "AP_no_grayscale": -1.0},
        paper=None if variant else 9.69,
    )
    study.claims.grayscale = common.claim(
        "Without grayscale SP loses less than AP.",
        headline,
        {
            "AP_all": 1.0,
            "AP_no_grayscale": -1.0,
            "SP_all": -1.0,
            "SP_no_grayscale": 1.0,
        },
    )
    study.claims.crop = common.claim(
        "With crops alone SP is better than AP.",
        headline,
        {"SP_crop_only": 1.0, "AP_crop_only": -1.0},
        paper=None if variant else 39.98,
    )
    study.claims.crop_loss = common.claim(
        "With crops alone SP loses less than AP.",
        headline,
        {"AP_all": 1.0, "AP_crop_only": -1.0, "SP_all": -1.0, "SP_crop_only": 1.0},
    )
    study.figure = {"kind": "bars", "x": "augmentation", "series": "pairs"}
    return study
