"""SimCLR on Tiny-ImageNet, the paper's second set: ResNet-50, 64 px, batch 256, 200 epochs.

    python -m sp_jax.main --config=configs/tiny_imagenet.py \
        --config.data.store=tiny_imagenet:/data/tiny-imagenet-200.zip
    python -m sp_jax.main --config=configs/tiny_imagenet.py:quick …  # minutes on a CPU

Semantic pairs; the matched augmentation pairs are --config.data.pairing=augmented, curated or
mined ones --config.data.pairs=FILE. Evaluate it on another set, as the paper does:

    python -m eval.linear_probe --checkpoint=runs/… \
        --dataset=cifar10:cifar-10-python.tar.gz
"""

from configs import common, simclr_resnet50


def get_config(variant: str = ""):
    """The recipe of `configs/simclr_resnet50.py`; quick: two epochs of a small ResNet-18."""
    config = simclr_resnet50.get_config(variant)
    config.data.store = "tiny_imagenet:data/tiny-imagenet-200"
    config.data.split = "train"
    if common.is_quick(variant):
        config.epochs = 2.0
        config.data.rounds = 1
        config.evals = {}  # no drawings
        # Photographs: the method's own crops, colours and blur.
        colours = ("brightness", "contrast", "saturation", "hue")
        for name in ("crop_scale", "blur", *colours):
            config.augment[name] = None
    return config
