"""SimCLR on Tiny-ImageNet, the paper's second set: ResNet-50, 64 px, batch 256, 200 epochs.

    python -m sp_jax.main --config=configs/tiny_imagenet.py \
        --config.data.store=tiny_imagenet:/data/tiny-imagenet-200.zip
    python -m sp_jax.main --config=configs/tiny_imagenet.py:quick_crops …  # a small network
    python -m sp_jax.main --config=configs/tiny_imagenet.py:quick \
        --config.data.pairing=augmented …  # its matched augmentation pairs

Semantic pairs, unless data.pairing says otherwise; curated or mined ones are
--config.data.pairs=FILE. Evaluate on another set, as the paper does:

    python -m eval.linear_probe --checkpoint=runs/… \
        --dataset=cifar10:cifar-10-python.tar.gz
"""

from configs import simclr_resnet50
from sp_jax.errors import UserError

VARIANTS = ("", "quick", "quick_crops")


def get_config(variant: str = ""):
    """The recipe of `configs/simclr_resnet50.py`.

    quick: two epochs of a small ResNet-18, in minutes on a CPU. quick_crops: with crops and
    flips alone, for semantic pairs. Two photographs of a class have shapes in common, and
    seldom colours. If colours change at random as well, a small network hardly learns from
    random pairs of a class (docs/results.md#photographs); augmentation pairs need that change.
    """
    if variant not in VARIANTS:
        known = ", ".join(f":{name}" for name in VARIANTS if name)
        raise UserError(f"There is no variant {variant!r}: use {known}, or none.")
    config = simclr_resnet50.get_config("quick" if variant else "")
    config.data.store = "tiny_imagenet:data/tiny-imagenet-200"
    config.data.split = "train"
    if variant:
        config.epochs = 2.0
        config.data.rounds = 1
        config.evals = {}  # no drawings
        # Photographs: the method's own crops, colours and blur.
        colours = ("brightness", "contrast", "saturation", "hue")
        for name in ("crop_scale", "blur", *colours):
            config.augment[name] = None
    if variant == "quick_crops":
        config.augment.update(jitter=0.0, grayscale=0.0, blur=0.0)
    return config
