"""SimCLR on Tiny-ImageNet, the paper's second set: ResNet-50, 64 px, batch 256, 200 epochs.

    python -m sp_jax.main --config=configs/tiny_imagenet.py \
        --config.data.store=tiny_imagenet:/data/tiny-imagenet-200.zip
    python -m sp_jax.main --config=configs/tiny_imagenet.py:quick_faint …  # a small network
    python -m sp_jax.main --config=configs/tiny_imagenet.py:quick_half \
        --config.data.pairing=augmented …  # its matched augmentation pairs

Semantic pairs, unless data.pairing says otherwise; curated or mined ones are
--config.data.pairs=FILE. Evaluate on another set, as the paper does:

    python -m eval.linear_probe --checkpoint=runs/… \
        --dataset=cifar10:cifar-10-python.tar.gz
"""

from configs import simclr_resnet50
from sp_jax.errors import UserError

# Of the changes of colour that were measured (docs/results.md#photographs), the best ones for a
# small network: for augmentation pairs half of SimCLR's jitter, for random pairs of a class a
# quarter of it, without gray and blur. Two photographs of a class have shapes in common, and
# seldom colours: if colours change much, a small network hardly learns from such pairs.
HALF_OF_THE_JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
FAINT_COLOURS = {"jitter": 0.8, "grayscale": 0.0, "blur": 0.0} | {
    name: strength / 2 for name, strength in HALF_OF_THE_JITTER.items()
}
VARIANTS = {
    "": {},
    "quick": {},
    "quick_half": HALF_OF_THE_JITTER,
    "quick_faint": FAINT_COLOURS,
}


def get_config(variant: str = ""):
    """The recipe of `configs/simclr_resnet50.py`.

    quick: two epochs of a small ResNet-18, in minutes on a CPU, with SimCLR's own changes of
    colour. quick_faint: with faint ones, for semantic pairs. quick_half: with half of the
    jitter, for augmentation pairs.
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
        config.augment.update(VARIANTS[variant])
    return config
