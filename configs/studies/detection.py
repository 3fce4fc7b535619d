r"""Detection: Faster R-CNN from SP, from AP and from a random network.

    python -m eval.study --study=configs/studies/detection.py \
        --study.stores.pretrain=folder:/data/imagenet187 \
        --study.stores.voc=folder:/data/VOCdevkit
    python -m eval.study --study=configs/studies/detection.py:quick   # scenes of drawings, CPU
"""

from configs.studies import common


def get_config(variant: str = ""):
    """SimCLR on SP and AP, fine-tuned as Faster R-CNN R50-C4 on VOC."""
    study = common.get_study()
    common.add_data(study, variant, transfer=False)
    study.title = "Detection"
    study.about = (
        "A ResNet-50 of SimCLR on semantic (SP) and on augmentation pairs (AP), and a random "
        "one, fine-tuned as Faster R-CNN on PASCAL VOC. AP, AP50 and AP75 follow VOC 2007, "
        "with 11 recalls, as in the tables of MoCo."
    )
    options = {"config": "configs/eval/voc_faster_rcnn_c4.py"}
    if variant == "quick":
        options = {"config": "configs/eval/scenes_faster_rcnn_c4.py"}
        study.about += (
            " Here: quarter-width ResNet-18, scenes composed of the drawings."
        )
    else:
        study.stores.voc = "folder:data/VOCdevkit"
        options["data"] = {"store": "{voc}"}
    study.evaluations.boxes = {"type": "detection", **options}
    for pairs in common.PAIRS:
        study.arms[pairs] = common.arm(
            f"configs/simclr_resnet50.py{common.suffix(variant)}",
            {"backbone": pairs},
            common.pairing(pairs),
        )
    study.arms.random = common.arm("", {"backbone": "random"})
    for title in ("AP", "AP50", "AP75"):
        study.measures[title] = common.measure(f"boxes/voc07_{title.lower()}")
    if not variant:
        study.paper.SP = {"AP": 50.30, "AP50": 75.02, "AP75": 55.22}
        study.paper.AP = {"AP": 48.90, "AP50": 73.82, "AP75": 53.72}
    study.claims.pairs = common.claim(
        "SP is better than AP.",
        "AP50",
        {"SP": 1.0, "AP": -1.0},
        paper=None if variant else 1.20,
    )
    for pairs in common.PAIRS:
        study.claims[f"random_{pairs}"] = common.claim(
            f"{pairs} is better than a random network.",
            "AP50",
            {pairs: 1.0, "random": -1.0},
        )
    study.figure = {"kind": "detection", "result": "boxes", "x": "backbone"}
    return study
