r"""The paper's claim on photographs: pairs of a class against two matched sets of AP.

    python -m eval.study --study=docs/studies/photographs_30_epochs.py --jobs=1 \
        --study.stores.pretrain=folder:/data/photographs187 \
        --study.stores.cifar10=folder:/data/cifar10 --study.stores.kept=folder:/data/kept

`pretrain` holds the first 187 classes (by name) of Tiny-ImageNet with 300 images each, `kept`
14 others of each class, 7 in train/ and 7 in test/, which no run sees. Of class i the files,
sorted by name, are taken in the order of
`numpy.random.default_rng([20261129, i]).permutation(314)`: the first 7 are kept for train/, the
next 7 for test/. A run is 6,570 steps: 45 to 60 minutes of one core.
"""

from configs.studies import common

EPOCHS = 30.0
AUGMENTATIONS = {"all": {}, "crop only": {"jitter": 0.0, "grayscale": 0.0, "blur": 0.0}}
PER_CLASS = 150


def get_config(variant: str = ""):
    """SimCLR, ResNet-18 of width 16, batches of 128; SP and AP with the same steps."""
    if variant:
        raise ValueError(f"There is no variant {variant!r}: leave it out.")
    study = common.get_study()
    study.title = "Photographs"
    study.about = (
        "SimCLR on 150 random pairs a class of 187 classes (SP), on their first images as "
        "augmentation pairs, and on all of their images as augmentation pairs, for the same "
        "number of steps, so half of the epochs. With all augmentations, and with crops and "
        "flips alone."
    )
    study.stores.pretrain = "folder:data/photographs187"
    study.stores.cifar10 = "folder:data/cifar10"
    study.stores.kept = "folder:data/kept"
    study.changes.data = {"store": "{pretrain}", "split": "all"}
    study.changes.log_every = 73
    # Each epoch's checkpoint stays until the ones of epochs 1, 3 and 10 are evaluated.
    study.changes.checkpoint = {"every": 219, "keep_every": 219}
    table = ("input_pipeline.build_pairs", "--store={pretrain}", "--split=all")
    table += (f"--pairs_per_class={PER_CLASS}", "--seed={seed}")
    table += ("--out={folder}/table.csv",)
    for name, augment in AUGMENTATIONS.items():
        for pairs in ("SP", "AP first", "AP both"):
            changes = {"augment": augment, "epochs": EPOCHS, "data": {}}
            prepare = (table,)
            if pairs == "AP both":
                # 150 pairs a class hold each of its 300 images once.
                changes["epochs"] = EPOCHS / 2
                changes["optimizer"] = {"warmup_epochs": 0.5}
                prepare = ()
            else:
                changes["data"] |= common.TABLE["data"]
            if pairs != "SP":
                changes["data"] |= {"pairing": "augmented"}
            study.arms[f"{pairs} {name}".replace(" ", "_")] = common.arm(
                "configs/tiny_imagenet.py:quick",
                {"augmentation": name, "pairs": pairs},
                changes,
                prepare,
            )
    study.arms.untrained = common.arm(
        "configs/tiny_imagenet.py:quick",
        {"augmentation": "none", "pairs": "untrained"},
        {
            "epochs": 0.002,
            "optimizer": {"learning_rate": 0.0, "warmup_epochs": 0.0},
        },
    )
    common.add_probe(study, "cifar10", "CIFAR-10")
    study.evaluations.kept = {
        "type": "knn",
        "dataset": "{kept}",
        "train_split": "train",
        "test_split": "test",
    }
    study.measures.kept = common.measure("kept/accuracy_k10")
    study.measures.minutes = common.measure("run/minutes", percent=False)
    sp, first, both = "SP_{}", "AP_first_{}", "AP_both_{}"
    for name in AUGMENTATIONS:
        word = name.replace(" ", "_")
        for other, text in ((first, "their first images"), (both, "all their images")):
            study.claims[f"{other.format(word)}"] = common.claim(
                f"{name}: SP is better than AP of {text}.",
                "CIFAR-10",
                {sp.format(word): 1.0, other.format(word): -1.0},
            )
    study.claims.best = common.claim(
        "SP with crops alone is better than AP of all images with all augmentations.",
        "CIFAR-10",
        {"SP_crop_only": 1.0, "AP_both_all": -1.0},
    )
    study.figure = {"kind": "bars", "x": "augmentation", "series": "pairs"}
    return study
