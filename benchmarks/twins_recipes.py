"""The recipes of `benchmarks.twins`: configs for `sp_jax.main`, read by both sides.

    python -m sp_jax.main --config=benchmarks/twins_recipes.py:byol \
        --config.data.store=folder:CIFAR10 --config.evals.knn.dataset=folder:CIFAR10
"""

import importlib

from sp_jax.errors import UserError

METHODS = ("simclr", "vicreg", "byol", "dino")
WARMUP = 1 / 6  # of the whole run
IMAGES = "train:holdout=0.4"  # of CIFAR-10 20,000 images, 2,000 a class


def get_config(method: str = "simclr"):
    """The quick recipe of a method on photographs of 32 px, three epochs of 156 steps."""
    if method not in METHODS:
        raise UserError(f"There is no variant {method!r}: use {', '.join(METHODS)}.")
    config = importlib.import_module(f"configs.{method}_resnet50").get_config("quick")
    config.image_size = config.data.image_size = 32
    config.epochs = 3.0
    config.log_every = 26
    config.data.update(store="folder:cifar10", split=IMAGES, rounds=1)
    config.data.pairing = "augmented"

    # The method's own views, not those of drawings, as lightly can make them: its crop is
    # bilinear, and PIL blurs with the whole bell, not with the three pixels of SimCLR's rule.
    for name in ("crop_scale", "blur", "brightness", "contrast", "saturation", "hue"):
        config.augment[name] = None
    config.augment.interpolation = "bilinear"
    config.augment.blur_kernel = 13

    # One optimiser of each kind; VICReg and BYOL have the quick recipe's LARS.
    config.optimizer.warmup_epochs = WARMUP * config.epochs
    if method == "simclr":
        config.optimizer.update(name="sgd", learning_rate=0.12, weight_decay=5e-4)
    elif method == "dino":
        config.optimizer.update(name="adamw", learning_rate=4e-3, weight_decay=0.04)
        config.optimizer.update(final_weight_decay=0.4, final_factor=0.002)

    knn = dict(type="knn", dataset="folder:cifar10", train_split=IMAGES, k=(20,))
    config.evals = {"knn": knn | dict(test_split="test", every_epochs=1)}
    return config
