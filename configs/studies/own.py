r"""Tonight's number: what semantic pairs are worth on a folder of photographs of your own.

    python -m eval.study --study=configs/studies/own.py --study.images=folder:PHOTOS \
        --study.test=folder:OTHER --study.hours=2

SimCLR on semantic pairs (SP) and on augmentation pairs (AP), each with half of SimCLR's jitter
of colours and with faint colours, beside the untrained network. Of the settings that were
measured on photographs, AP was best with the one and SP with the other.

`eval/study/own_images.py` finds out what the images allow; `eval/study/budget.py` measures what
a step takes on this machine, and chooses the largest of `SIZES` and the number of steps with
which all runs end in time; `make_study` makes the study.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from configs.studies import common
from configs.tiny_imagenet import FAINT_COLOURS, HALF_OF_THE_JITTER

IMAGE_SIZE = 64
AUGMENTATIONS = {
    "half of the jitter": HALF_OF_THE_JITTER,
    "faint colours": FAINT_COLOURS,
}
BEST_SP, BEST_AP = "SP_faint_colours", "AP_half_of_the_jitter"
FAMILIES = ("occlusion", "texture", "illumination")
_QUICK = "configs/tiny_imagenet.py:quick"


class Size(NamedTuple):
    """A network, and the steps that it needs to be worth its time.

    Attributes:
        name: in words.
        config: its recipe, and what is changed in it.
        width: of the network.
        batch_size: pairs per step, if there are twice as many.
        least: if there is time for fewer steps, a smaller network is chosen.
    """

    name: str
    config: str
    width: int
    batch_size: int
    least: int


SIZES = (
    Size("ResNet-18 of width 16", _QUICK, 16, 128, 100),
    Size("ResNet-18 of width 32", _QUICK, 32, 128, 4_000),
    Size("ResNet-18 of width 64", _QUICK, 64, 128, 10_000),
    Size("ResNet-50", "configs/simclr_resnet50.py", 64, 256, 40_000),
)


class Found(NamedTuple):
    """The study that the images allow.

    Attributes:
        split: the part of the images to train on.
        pairs: number of semantic pairs.
        shown: number of augmentation pairs.
        table: CSV of the semantic pairs; "": draw them from the labels.
        mined: whether an encoder finds the pairs, because there are no labels.
        test: image store to evaluate features on.
        fit_split: of `test`, to fit on.
        test_split: of `test`, to report on.
        fingerprint: of the training images.
        sentences: all of this in words.
    """

    split: str
    pairs: int
    shown: int
    table: str
    mined: bool
    test: str
    fit_split: str
    test_split: str
    fingerprint: str
    sentences: tuple[str, ...]


def get_config():
    """The options; `make_study` turns them into a study."""
    asked = common.ordered()
    asked.images = ""  # store to train on, with labels or without
    asked.test = ""  # labelled store to evaluate on; "": a tenth of each class
    asked.pairs = ""  # CSV of semantic pairs; "": by labels, or by an encoder
    asked.baseline = ""  # file of weights (torchvision, timm) to compare with
    asked.hours = 2.0  # for the whole study
    asked.seeds = (0, 1, 2)
    return asked


def make_study(asked: Mapping[str, Any], found: Found, size: Size, steps: int):
    """The study of a network and a number of steps.

    Args:
        asked: options as in `get_config`.
        found: what the images allow.
        size: the network.
        steps: of each run.
    """
    study = common.get_study()
    study.title = "Semantic pairs of your own images"
    study.about = " ".join(
        (
            f"SimCLR on {asked['images']}: {size.name}, {steps:,} steps.",
            *found.sentences,
            "AP are two views of one image, in as many steps with as many pairs each. Half of "
            "the jitter is SimCLR's augmentation with half of its changes of colour. Faint "
            "colours are crops, flips and a quarter of these changes, without gray and blur.",
        )
    )
    study.seeds = asked["seeds"]
    study.stores.update(images=asked["images"], test=found.test, pairs=found.table)
    batch = batch_size(size, found)
    data = {"store": "{images}", "split": found.split, "image_size": IMAGE_SIZE}
    study.changes.update(data=data, batch_size=batch, model={"width": size.width})
    study.changes.checkpoint.keep_every = 0
    for name, change in AUGMENTATIONS.items():
        for pairs in common.PAIRS:
            changes, more = _pairs(found, pairs)
            epochs = steps / ((found.shown if pairs == "AP" else found.pairs) // batch)
            changes |= {"augment": change, "epochs": epochs}
            # As a tenth of each run: that of the recipe may be longer than all of it.
            changes["optimizer"] = {"warmup_epochs": epochs / 10}
            study.arms[f"{pairs}_{name.replace(' ', '_')}"] = common.arm(
                size.config, {"augmentation": name, "pairs": pairs}, changes, **more
            )
    if asked["baseline"]:
        name = asked["baseline"].rpartition("/")[2]
        study.arms.baseline = common.arm(
            "", {"augmentation": "none", "pairs": name}, checkpoint=asked["baseline"]
        )
    _add_measures(study, found)
    _add_claims(study)
    study.figure.update(kind="invariance", result="invariance")
    study.figure.update(x="augmentation", series="pairs")
    return study


def batch_size(size: Size, found: Found) -> int:
    """Pairs per step: a power of two, with at least two steps per epoch."""
    most = min(found.pairs, found.shown) // 2
    return min(size.batch_size, 2 ** (most.bit_length() - 1))


def _pairs(found: Found, pairs: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The changes that make the pairs SP or AP, and the commands to run before."""
    if pairs == "AP" or not found.mined:
        # AP of a table shows its first images; without one, and with labels, all of them.
        return {"data": {**common.pairing(pairs)["data"], "pairs": "{pairs}"}}, {}
    store = ("--store={images}", f"--split={found.split}")
    mined = "{folder}/mined.csv"
    # Fewer than these would be fewer steps than the other arms make: that is an error.
    best = (f"--pairs={mined}", f"--pairs_per_class={found.pairs}")
    encode = ("input_pipeline.mine_pairs", *store, "--checkpoint={after}")
    choose = ("input_pipeline.build_pairs", *store, *best, "--out={folder}/table.csv")
    prepare = ((*encode, f"--out={mined}"), choose)
    return {"data": dict(common.TABLE["data"])}, {"prepare": prepare, "after": BEST_AP}


def _add_measures(study: Any, found: Found) -> None:
    """Measures: kNN, a linear probe, the probe on corrupted images, and the cost."""
    images = {"dataset": "{test}", "image_size": IMAGE_SIZE, "resize": "crop"}
    images |= {"train_split": found.fit_split, "test_split": found.test_split}
    study.evaluations.knn = {"type": "knn", **images}
    study.evaluations.probe = {"type": "linear_probe", **images}
    study.evaluations.invariance = {"type": "invariance", **images, "images": 512}
    study.measures["linear probe"] = common.measure("probe/accuracy")
    study.measures["kNN"] = common.measure("knn/accuracy")
    for family in FAMILIES:
        of = f"invariance/{family}/accuracy"
        study.measures[f"under {family}"] = common.measure(of)
    study.measures["minutes"] = common.measure("run/minutes", percent=False)


def _add_claims(study: Any) -> None:
    """The claims that the page judges."""
    best = {BEST_SP: 1.0}
    sentences = {
        "best": (
            "SP with faint colours is better than AP with half of the jitter.",
            best | {BEST_AP: -1.0},
        ),
        "half": (
            "With half of the jitter SP is better than AP.",
            {"SP_half_of_the_jitter": 1.0, BEST_AP: -1.0},
        ),
        "faint": (
            "With faint colours SP is better than AP.",
            best | {"AP_faint_colours": -1.0},
        ),
        "trained": (
            "SP with faint colours is better than no training.",
            best | {"untrained": -1.0},
        ),
    }
    if "baseline" in study.arms:
        name = study.arms.baseline.factors.pairs
        for arm, how in {
            BEST_SP: "SP with faint colours",
            BEST_AP: "AP with half of the jitter",
        }.items():
            text = f"Training is worth it: {how} is better than {name}, ready-made."
            sentences[f"baseline_{arm}"] = text, {arm: 1.0, "baseline": -1.0}
    for name, (text, terms) in sentences.items():
        study.claims[name] = common.claim(text, "linear probe", terms)
