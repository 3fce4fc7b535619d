r"""The paper's claim on photographs: pairs of a class against two matched sets of AP.

    python -m eval.study --study=docs/studies/photographs.py --jobs=1 \
        --study.stores.pretrain=folder:/data/photographs187 \
        --study.stores.cifar10=folder:/data/cifar10 --study.stores.kept=folder:/data/kept
    … --study=docs/studies/photographs.py:sources        # where pairs come from, 10 epochs
    … --study=docs/studies/photographs.py:mixtures       # look-alike pairs, AP and SP mixed
    … --study=docs/studies/photographs.py:augmentations  # one change at a time, 10 epochs
    … --study=docs/studies/photographs.py:long           # the best of each, 30 epochs

`pretrain` holds the first 187 classes (by name) of Tiny-ImageNet with 300 images each, `kept`
14 others of each class, 7 in train/ and 7 in test/, which no run sees; `others` (of `:mixtures`
alone) holds all images of the 13 classes that remain. Of class i the files,
sorted by name, are taken in the order of
`numpy.random.default_rng([20261129, i]).permutation(314)`: the first 7 are kept for train/, the
next 7 for test/. Ten epochs are 2,190 steps: 20 minutes of one core.
"""

from configs.studies import common
from configs.tiny_imagenet import FAINT_COLOURS, HALF_OF_THE_JITTER

PER_CLASS = 150
CONFIG = "configs/tiny_imagenet.py:quick"
CROPS = {"jitter": 0.0, "grayscale": 0.0, "blur": 0.0}
QUARTER = {name: strength / 2 for name, strength in HALF_OF_THE_JITTER.items()}
COLOURS = {
    "jitter": 0.8,
    "grayscale": 0.2,
    "blur": 0.5,
}  # of SimCLR, as a second view's
AUGMENTATIONS = {
    "all": {},
    "crops alone": {"augment": CROPS},
    "faint colours": {"augment": FAINT_COLOURS},
}
# One factor of all augmentations at a time.
FACTORS = {
    "no grayscale": {"augment": {"grayscale": 0.0}},
    "no blur": {"augment": {"blur": 0.0}},
    "no jitter": {"augment": {"jitter": 0.0}},
    "a quarter of the jitter": {"augment": QUARTER},
    "half of the jitter": {"augment": HALF_OF_THE_JITTER},
    "crops from 0.2": {"augment": {"crop_scale": (0.2, 1.0)}},
    "crops from 0.4": {"augment": {"crop_scale": (0.4, 1.0)}},
    "colours on one view": {"augment": CROPS, "augment_second": COLOURS},
}
RANDOM = common.pairs_of_class("", PER_CLASS)
MINED = common.mined_pairs("", *common.BY_LEVELS)
# The most similar pairs of each class.
ALIKE = (
    common.mined_pairs("", "--within=label", *common.BY_LEVELS),
    (
        "input_pipeline.build_pairs",
        "--store={pretrain}",
        "--split={split}",
        "--pairs={folder}/table.csv",
        f"--pairs_per_class={PER_CLASS}",
        "--allow_small",
        "--out={folder}/alike.csv",
    ),
)


def get_config(variant: str = ""):
    """SimCLR, ResNet-18 of width 16, batches of 128; all arms with about as many steps."""
    if variant not in VARIANTS:
        raise ValueError(f"There is no variant {variant!r}: {', '.join(VARIANTS)}.")
    study = common.get_study()
    study.stores.pretrain = "folder:data/photographs187"
    study.stores.cifar10 = "folder:data/cifar10"
    study.stores.kept = "folder:data/kept"
    study.stores.update(split="all", pairs="")
    study.changes.data = {"store": "{pretrain}", "split": "{split}"}
    study.changes.log_every = 73
    study.changes.checkpoint = {"every": 219}
    study.figure = {"kind": "bars", "x": "augmentation", "series": "pairs"}
    common.add_probe(study, "cifar10", "CIFAR-10")
    study.evaluations.kept = {
        "type": "knn",
        "dataset": "{kept}",
        "train_split": "train",
        "test_split": "test",
    }
    study.measures.kept = common.measure("kept/accuracy_k10")
    VARIANTS[variant](study)
    return study


def add(study, name, pairs, augmentation, epochs, data, **more) -> None:
    """An arm of the study; `more` are its programs and its warm-up."""
    changes = {"epochs": epochs, "data": data, "optimizer": more.pop("optimizer", {})}
    changes |= (AUGMENTATIONS | FACTORS)[augmentation]
    factors = {"augmentation": augmentation, "pairs": pairs}
    study.arms[name] = common.arm(CONFIG, factors, changes, **more)


def add_sp(study, name, augmentation, epochs) -> None:
    """Random pairs of a class."""
    data = common.TABLE["data"]
    add(study, name, "SP", augmentation, epochs, data, prepare=(RANDOM,))


def add_ap_of_all(study, name, augmentation, epochs, pairs="AP both") -> None:
    """AP of all images, in as many steps as pairs of them take `epochs`."""
    # 150 pairs a class hold each of its 300 images once.
    data, warmup = {"pairing": "augmented"}, {"warmup_epochs": 0.5}
    add(study, name, pairs, augmentation, epochs / 2, data, optimizer=warmup)


def compare_with_ap(study, names) -> None:
    """A claim for each of these arms: it is better than the arm `AP_all`."""
    for name in names:
        study.claims[name] = common.claim(
            f"{name} is better than AP with all augmentations.",
            "CIFAR-10",
            {name: 1.0, "AP_all": -1.0},
        )


def compare_pairs(study) -> None:
    """Random pairs of a class and both matches of AP, 10 epochs."""
    study.title = "Photographs"
    study.about = (
        "SimCLR on 150 random pairs a class of 187 classes (SP), on their first images as "
        "augmentation pairs, and on all of their images as augmentation pairs, for the same "
        "number of steps (2,190), so half of the epochs. With all augmentations, and with "
        "crops and flips alone."
    )
    data = common.TABLE["data"] | {"pairing": "augmented"}
    for augmentation in ("all", "crops alone"):
        word = augmentation.split()[0]
        sp, first, both = f"SP_{word}", f"AP_first_{word}", f"AP_{word}"
        add_sp(study, sp, augmentation, 10.0)
        add(study, first, "AP first", augmentation, 10.0, data, prepare=(RANDOM,))
        add_ap_of_all(study, both, augmentation, 10.0)
        for other, text in ((first, "their first images"), (both, "all their images")):
            study.claims[other] = common.claim(
                f"{augmentation}: SP is better than AP of {text}.",
                "CIFAR-10",
                {sp: 1.0, other: -1.0},
            )
    compare_with_ap(study, ["SP_crops"])


def compare_best(study) -> None:
    """SP and AP, each with augmentations that suit it, 30 epochs, evaluated on the way."""
    study.title = "Photographs, thirty epochs"
    study.about = (
        "SimCLR on random pairs of a class (SP) with crops alone and with faint colours, and "
        "on all of their images as augmentation pairs with all augmentations and with half of "
        "the jitter; 6,570 steps each. At the end, images of CIFAR-10 are corrupted in three "
        "families: the cosine between the features of an image and of the changed one (0: as "
        "of different images), and the accuracy of a probe that was fitted on unchanged ones."
    )
    add_sp(study, "SP_crops", "crops alone", 30.0)
    add_sp(study, "SP_faint", "faint colours", 30.0)
    add_ap_of_all(study, "AP_all", "all", 30.0)
    add_ap_of_all(study, "AP_half", "half of the jitter", 30.0)
    compare_with_ap(study, ["SP_crops", "SP_faint"])
    study.claims.best = common.claim(
        "Best against best: SP_faint is better than AP_half.",
        "CIFAR-10",
        {"SP_faint": 1.0, "AP_half": -1.0},
    )
    # CIFAR-10 and the kept images are evaluated while training, instead.
    images = {"dataset": "{cifar10}", "train_split": "train", "test_split": "test"}
    study.evaluations = {"invariance": {"type": "invariance", **images}}
    for family in ("occlusion", "texture", "illumination"):
        for kind in ("cosine", "accuracy"):
            title = f"{family}, {kind}"
            study.measures[title] = common.measure(f"invariance/{family}/{kind}")
    for arm in study.arms.values():
        arm.config = "docs/studies/photographs_run.py"
        epochs = arm.changes.epochs / 30
        arm.changes.evals = {
            "kept": {"dataset": "{kept}", "every_epochs": epochs},
            "probe_cifar10": {"dataset": "{cifar10}", "every_epochs": 10 * epochs},
        }


def compare_sources(study) -> None:
    """Pairs of a class, pairs that an encoder found without labels, and AP, 10 epochs."""
    study.title = "Where the pairs of photographs come from"
    study.about = (
        "SimCLR on all images as augmentation pairs, on random pairs of a class, and on pairs "
        "that the encoder of the augmentation pairs has found without labels, by levels; each "
        "for about as many steps (2,190), with the augmentations that suit the pairs."
    )
    add_ap_of_all(study, "AP_all", "all", 10.0)
    table = common.TABLE["data"]
    for augmentation in AUGMENTATIONS:
        word = augmentation.split()[0]
        if augmentation != "all":  # with all of them such pairs hardly teach
            add_sp(study, f"SP_{word}", augmentation, 10.0)
        more = {"prepare": (MINED,), "after": "AP_all"}
        add(study, f"mined_{word}", "mined", augmentation, MINED_EPOCHS, table, **more)
    study.measures.precision = common.measure("run/precision")
    compare_with_ap(study, list(study.arms)[1:])


def compare_augmentations(study) -> None:
    """SP and AP with one factor of all augmentations changed, 10 epochs, seed 0."""
    study.title = "Augmentations of photographs, one at a time"
    study.about = (
        "SimCLR on random pairs of a class and on all of their images as augmentation pairs, "
        "for 2,190 steps, with all augmentations but for one change."
    )
    study.seeds = (0,)
    for augmentation in AUGMENTATIONS | FACTORS:
        word = augmentation.replace(" ", "_").replace(".", "_")
        add_sp(study, f"SP_{word}", augmentation, 10.0)
        add_ap_of_all(study, f"AP_{word}", augmentation, 10.0)


def compare_mixtures(study) -> None:
    """Pairs of a class that look alike, mixed with AP, after AP; and SupCon, 10 epochs."""
    study.title = "Photographs: pairs that look alike, and mixtures"
    study.about = (
        "As `:sources`, with labels: pairs of a class that look alike to an encoder of 13 "
        "other classes (their images as augmentation pairs, 744 steps); each pair of a batch "
        "semantic or of one image, with equal chance; augmentation pairs for 3 epochs and "
        "then semantic ones; and SupCon, which pairs all images of a class in the batch."
    )
    study.stores.others = "folder:data/others13"
    add_ap_of_all(study, "AP_all", "all", 10.0)
    others = {"pairing": "augmented", "store": "{others}"}
    add(study, "encoder", "AP of 13 other classes", "all", 24.0, others)
    table = common.TABLE["data"]
    half = table | {"pairing": "mixed", "semantic_fraction": 0.5}
    after = table | {"pairing": "mixed", "semantic_schedule": ((0.0, 0.0), (3.0, 1.0))}
    more = {"prepare": (RANDOM,)}
    add(study, "AP_then_SP", "AP, then SP", "all", 10.0, after, **more)
    for augmentation in ("all", "crops alone"):
        word = augmentation.split()[0]
        add(study, f"half_{word}", "half SP, half AP", augmentation, 10.0, half, **more)
        add_ap_of_all(study, f"SupCon_{word}", augmentation, 10.0, "SupCon")
        study.arms[f"SupCon_{word}"].changes.method = "supcon"
    alike, data = "SP that look alike", {"pairs": "{folder}/alike.csv"}
    more = {"prepare": ALIKE, "after": "encoder"}
    add(study, "alike_crops", alike, "crops alone", 10.0, data, **more)
    compare_with_ap(study, list(study.arms)[2:])


MINED_EPOCHS = 8.2  # of about 34,000 pairs
VARIANTS = {
    "": compare_pairs,
    "long": compare_best,
    "sources": compare_sources,
    "mixtures": compare_mixtures,
    "augmentations": compare_augmentations,
}
