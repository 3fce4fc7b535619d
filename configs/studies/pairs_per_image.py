r"""The number of partners of an image: one pair per image, or several, in the same steps.

    python -m eval.study --study=configs/studies/pairs_per_image.py \
        --study.stores.pretrain=folder:/data/imagenet187
    python -m eval.study --study=configs/studies/pairs_per_image.py:quick   # drawings, CPU
"""

from configs.studies import common

ROUNDS = {"": (1, 2, 4, 8), "small": (1, 2, 4, 8), "quick": (1, 2, 4)}


def get_config(variant: str = ""):
    """SimCLR on SP with 1, 2, 4 … rounds of pairs, in the same number of steps."""
    study = common.get_study()
    common.add_data(study, variant)
    study.title = "Pairs an image"
    study.about = (
        "The paper gives each image one partner. Here each is the first image of 1, 2, 4 … "
        "pairs, with another partner in each; runs have the same number of steps, so an "
        "image is shown as often."
    )
    # Of one round; the quick recipe has six epochs of two rounds. The warm-up, too, has as
    # many steps in each run.
    epochs, warmup = {"": (200.0, 10.0), "small": (50.0, 10.0), "quick": (12.0, 2.0)}[
        variant
    ]
    for rounds in ROUNDS[variant]:
        study.arms[f"SP_{rounds}"] = common.arm(
            f"configs/simclr_resnet50.py{common.suffix(variant)}",
            {"pairs an image": str(rounds)},
            {
                "epochs": epochs / rounds,
                "data": {"rounds": rounds},
                "optimizer": {"warmup_epochs": warmup / rounds},
            },
        )
    one, most = ROUNDS[variant][0], ROUNDS[variant][-1]
    study.claims.more = common.claim(
        f"{most} partners are better than one.",
        common.HEADLINES[variant],
        {f"SP_{most}": 1.0, f"SP_{one}": -1.0},
    )
    study.figure = {"kind": "lines", "x": "pairs an image"}
    return study
