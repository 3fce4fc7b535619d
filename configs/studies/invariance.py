r"""What semantic pairs make features robust to: occlusion, background, texture, illumination.

    python -m eval.study --study=configs/studies/invariance.py \
        --study.stores.pretrain=folder:/data/imagenet187
    python -m eval.study --study=configs/studies/invariance.py:quick   # drawings, CPU
"""

from configs.studies import common

FAMILIES = ("occlusion", "background", "texture", "illumination")


def get_config(variant: str = ""):
    """SimCLR on SP and AP, evaluated on corrupted images."""
    study = common.get_study()
    common.add_data(study, variant, transfer=False)
    study.title = "Invariances"
    study.about = (
        "The paper says that semantic pairs make features more robust to occlusion, "
        "background, texture and illumination, and does not measure it. Here images are "
        "changed in levels: the cosine between the features of an image and of the changed one "
        "(0: as of different images), and the accuracy of a probe that was fitted on unchanged "
        "ones. Backgrounds can be exchanged only where images have alpha: the drawings."
    )
    where = {"train_split": "train", "test_split": "test"}
    if variant == "quick":
        where = {"train_split": "probe_train", "test_split": "probe_test"}
        where["target"] = "category"
    study.stores.images = {"": "stl10", "small": "cifar10", "quick": "emoji"}[variant]
    if variant != "quick":
        study.stores.images = common.ARCHIVES[study.stores.images]
    study.evaluations.invariance = {
        "type": "invariance",
        "dataset": "{images}",
        **where,
    }
    study.measures["unchanged, accuracy"] = common.measure("invariance/clean_accuracy")
    for pairs in common.PAIRS:
        study.arms[pairs] = common.arm(
            f"configs/simclr_resnet50.py{common.suffix(variant)}",
            {"pairs": pairs},
            common.pairing(pairs),
        )
    for family in FAMILIES:
        if family == "background" and variant != "quick":
            continue
        for kind in ("cosine", "accuracy"):
            title = f"{family}, {kind}"
            study.measures[title] = common.measure(f"invariance/{family}/{kind}")
        study.claims[family] = common.claim(
            f"SP is more robust to {family} than AP.",
            f"{family}, cosine",
            {"SP": 1.0, "AP": -1.0},
        )
    study.figure = {"kind": "invariance", "result": "invariance", "series": "pairs"}
    return study
