r"""A small set of semantic pairs against a large one of single images: accuracy and hours.

    python -m eval.study --study=configs/studies/tiny_imagenet.py \
        --study.stores.pretrain=folder:/data/imagenet187 \
        --study.stores.large=tiny_imagenet:/data/tiny-imagenet-200
    python -m eval.study --study=configs/studies/tiny_imagenet.py:quick   # drawings, CPU
"""

from configs.studies import common


def get_config(variant: str = ""):
    """SimCLR for the same number of epochs on both."""
    study = common.get_study()
    common.add_data(study, variant)
    study.title = "Fewer images, but semantic pairs"
    study.about = (
        "SimCLR on 29,359 semantic pairs of 187 classes, and on the 100,000 images of "
        "Tiny-ImageNet as augmentation pairs, for the same number of epochs. In the paper the "
        "smaller set gives better features in a third of the time (one A100)."
    )
    few: dict = {}
    prepare = ()
    large = {"data": {"pairing": "augmented"}}
    if variant:
        # One set: some of its pairs, against all of its images.
        count = {"small": 50, "quick": 1}[variant]
        study.about += (
            f" Here: {count} pairs a class, against all images of the same classes."
        )
        few, prepare = common.TABLE, (common.pairs_of_class(variant, count),)
        if variant == "quick":
            study.changes.epochs = 20.0
            large["data"]["rounds"] = 1
    else:
        study.stores.large = "tiny_imagenet:data/tiny-imagenet-200"
        large["data"] |= {"store": "{large}", "split": "train", "pairs": ""}
    config = f"configs/simclr_resnet50.py{common.suffix(variant)}"
    study.arms.SP = common.arm(config, {"images": "few, SP"}, few, prepare)
    study.arms.AP = common.arm(config, {"images": "many, AP"}, large)
    if not variant:
        study.paper.SP = {"CIFAR-10": 83.60, "STL-10": 85.59, "hours": 4.5}
        study.paper.AP = {"CIFAR-10": 79.43, "STL-10": 79.61, "hours": 13.0}
    gains = {"CIFAR-10": 4.17, "STL-10": 5.98}
    if variant:
        gains = {common.HEADLINES[variant]: None}
    for title, gain in gains.items():
        study.claims[title] = common.claim(
            f"The few pairs are better than the many images on {title}.",
            title,
            {"SP": 1.0, "AP": -1.0},
            paper=gain,
        )
    study.figure = {"kind": "bars", "x": "images"}
    return study
