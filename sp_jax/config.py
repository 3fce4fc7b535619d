"""Every key of a config, with its default. A recipe starts from here.

A placeholder (None) means the method's own default; see `sp_jax/methods/NAME.py`.
"""

import pathlib
import runpy
from collections.abc import Mapping
from typing import Any

import ml_collections
from ml_collections.config_dict import placeholder

from sp_jax.errors import UserError
from sp_jax.registry import describe_mistake

# Sections whose keys are not fixed: a method's options, a backbone's, the evaluators, a
# detector's.
OPEN_SECTIONS = ("method_options", "model", "evals", "detector")
PAIRINGS = ("semantic", "augmented", "both", "mixed")  # how a run shows its pairs


def get_config() -> ml_collections.ConfigDict:
    """The paper's setting: ResNet-50, 64 px, batch 256, 200 epochs."""
    config = ml_collections.ConfigDict()
    config.seed = 0  # of all random numbers
    # A file of sp_jax/methods, or the import path of your own: "mypackage.mymethod".
    config.method = "simclr"
    config.method_options = ml_collections.ConfigDict()  # arguments of its create()
    config.dtype = "auto"  # activations: bfloat16 on accelerators, float32 on a CPU
    config.image_size = 64  # side of the views in pixels
    config.batch_size = 256  # pairs per step, over all devices
    config.epochs = 200.0  # passes over all pairs
    # Weights to start from: a run, a checkpoint, a file or an exported folder; "": none.
    config.init = ""
    config.init_heads = False  # take the heads, too, from a run of the same method

    config.model = ml_collections.ConfigDict()  # arguments of sp_jax.models.get()
    config.model.name = "resnet50"  # a network of sp_jax.models, or an import path
    config.model.width = 64  # ResNets only: channels of the first stage
    # ResNets only: imagenet (7x7, stride 2, then pooling) | small (3x3, stride 1).
    config.model.stem = "imagenet"
    # ResNets only: each block starts as the identity.
    config.model.zero_init_residual = True
    # Two keys of every model are not set here. They fit large batches into small memory:
    # `chunks` (1), the parts in which a batch goes through the backbone (gradient caching),
    # and `remat` (False), recompute the activations in a block instead of keeping them.

    config.data = data = ml_collections.ConfigDict()
    # emoji | folder:DIR | images:DIR | tiny_imagenet:DIR | cifar10:PATH | tfds:NAME | …
    data.store = "emoji"
    data.split = "all"  # of the store; "all" is every image
    data.image_size = 64  # side of the stored images
    data.resize = "crop"  # crop: the centre of an image | squash: the whole image
    # Largest share of the images that may be damaged; these are left out.
    data.max_skipped = 0.01
    data.dir = ""  # prepared images; "" is $SP_JAX_DATA, else ~/.cache/sp_jax
    # semantic: one view of each image; augmented: two views of the first image; both: two
    # views of the first and two of the second, so a table of N pairs gives 2N augmentation
    # pairs, and half as many epochs (of warm-up, too) make the same number of steps;
    # mixed: semantic and augmentation pairs.
    data.pairing = "semantic"
    data.semantic_fraction = 0.5  # for mixed: the fraction of semantic pairs
    # For mixed: (epoch, fraction), ... sets the fraction from each epoch on; the first epoch
    # is 0. ((0, 0.0), (3, 1.0)): augmentation pairs for three epochs, then semantic pairs.
    data.semantic_schedule = ()
    data.pairs = ""  # CSV of a pair table; "" makes one from the labels
    data.rounds = 1  # pairs per image in the table that is made
    # Where the pixels are kept: device | stream (from the host) | auto (measures what fits).
    data.placement = "auto"
    data.prefetch = 2  # batches read ahead, by each worker; 0 for none
    data.workers = 0  # processes that read; 0 for a thread of this process

    # Changes to every view of the method. 0 switches an operation off; the paper's
    # "crop only" is jitter, grayscale, blur and solarize at 0.
    config.augment = augment = _changes_of_a_view()
    # Changes to the second view alone, applied after these: colours on one view, say.
    config.augment_second = _changes_of_a_view()
    # Multi-crop (SwAV, DeepCluster, DINO): small views of both images of a pair.
    augment.local_crops = placeholder(int)
    augment.local_crop_scale = placeholder(tuple)  # their area, as a share of the image
    augment.mean = placeholder(tuple)  # the same for all views
    augment.std = placeholder(tuple)

    config.optimizer = optimizer = ml_collections.ConfigDict()
    optimizer.name = placeholder(str)  # lars | lars_inside | larc | sgd | adamw
    optimizer.learning_rate = placeholder(float)  # for a batch of 256; scaled to it
    optimizer.weight_decay = placeholder(float)  # of the parameters that decay
    optimizer.momentum = placeholder(float)  # of adamw: its first beta
    optimizer.warmup_epochs = placeholder(float)  # the learning rate rises from 0
    optimizer.final_factor = placeholder(float)  # last / highest learning rate
    optimizer.by_epoch = placeholder(bool)  # the learning rate changes once an epoch
    optimizer.final_weight_decay = placeholder(float)  # reached by half a cosine; adamw
    optimizer.clip = placeholder(float)  # norm of each parameter's gradient; 0: none

    # Devices that share one copy of parameters, optimiser and buffers (docs/scaling.md).
    config.fsdp = 1
    # Steps per call of the device, if the pixels are there; at most `log_every`. 0: auto.
    config.steps_per_call = 0
    config.log_every = 50  # steps between two lines of the record
    # Besides metrics.jsonl: tensorboard | wandb | an import path (docs/logging.md).
    config.loggers = ("tensorboard",)
    config.checkpoint = ml_collections.ConfigDict()
    config.checkpoint.every = 500  # steps between two checkpoints
    config.checkpoint.keep_last = 2  # how many of the newest to keep
    config.checkpoint.keep_every = 0  # also keep multiples of it; 0 for none

    # Named evaluators: a type of eval/ or an import path, its options, and every_epochs
    # (0: at the end). The untrained network is measured, too (docs/evaluation.md).
    config.evals = ml_collections.ConfigDict()

    config.profile = ml_collections.ConfigDict()
    config.profile.first_step = 20  # where the trace begins
    config.profile.steps = 0  # length of the trace; 0 for none
    return config


def _changes_of_a_view() -> ml_collections.ConfigDict:
    view = ml_collections.ConfigDict()
    view.crop_scale = placeholder(tuple)
    view.crop_ratio = placeholder(tuple)
    view.interpolation = placeholder(str)
    for name in (
        *("flip", "jitter", "brightness", "contrast", "saturation", "hue"),
        *("grayscale", "blur", "solarize", "solarize_threshold"),
    ):
        view[name] = placeholder(float)
    view.blur_sigma = placeholder(tuple)
    view.blur_kernel = placeholder(int)
    return view


def is_quick(variant: str) -> bool:
    """Whether `--config=FILE:quick` was asked for; UserError if another variant was."""
    if variant not in ("", "quick"):
        raise UserError(f"There is no variant {variant!r}: use :quick, or none.")
    return variant == "quick"


def quick(
    config: ml_collections.ConfigDict, epochs: float = 6.0
) -> ml_collections.ConfigDict:
    """Shrink a recipe to the embedded drawings and a CPU: the setting of the quickstart.

    The method and its views stay; each recipe sets what else it needs to learn in 300 steps
    (chosen as docs/quick_recipes.md says). It is evaluated on concepts that are not trained on.
    """
    config.image_size = 64
    config.batch_size = 128
    config.epochs = epochs
    if "width" in config.model and "." not in config.model.name:  # a ResNet of ours
        config.model.name = "resnet18"
        config.model.width = 16
        # One backbone for all methods, also for those whose official code does not.
        config.model.zero_init_residual = True

    # 6,500 pairs of 3,620 drawings.
    config.data.update(store="emoji", split="pretrain", rounds=2)
    # A drawing fills its image: larger crops than for photographs, weaker colours.
    colours = dict(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    config.augment.update(crop_scale=(0.5, 1.0), blur=0.0, **colours)
    config.optimizer.warmup_epochs = 1.0

    config.log_every = 25
    config.checkpoint.every = 100
    config.checkpoint.keep_every = 0

    splits = "probe_train", "probe_test"
    for target in ("category", "subcategory"):
        of = dict(dataset="emoji", target=target)
        of |= dict(train_split=splits[0], test_split=splits[1])
        config.evals[f"knn_{target}"] = dict(type="knn", every_epochs=2, **of)
        # At the end, and of the untrained network.
        probe = dict(type="linear_probe", every_epochs=epochs)
        config.evals[f"probe_{target}"] = probe | of | dict(scalings=("standardized",))
    retrieval = dict(type="retrieval", dataset="emoji", splits=splits)
    config.evals.retrieval = retrieval | dict(across="artist", every_epochs=2)
    return config


def load_config(text: str) -> ml_collections.ConfigDict:
    """The config of FILE or FILE:VARIANT; the variant is the argument of `get_config`.

    Raises:
        UserError: there is no such file, it has a mistake, or it gives no config.
    """
    path, colon, variant = text.partition(":")
    if not pathlib.Path(path).is_file():
        raise UserError(f"There is no config file {path!r}.")
    try:
        make = runpy.run_path(path).get("get_config")
        if make is None:
            raise UserError(f"{path} has no function get_config().")
        config = make(variant) if colon else make()
    except UserError:
        raise
    except Exception as error:  # a config is a program
        not_called = error.__traceback__.tb_next is None
        if isinstance(error, TypeError) and colon and not_called:
            raise UserError(
                f"{path} has no variants: leave {':' + variant!r} out."
            ) from error
        raise UserError(f"{path} cannot be used: {describe_mistake(error)}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(
            f"get_config() of {path} returns {config!r}: it must return a ConfigDict."
        )
    return config


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """One dict from nested ones, with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{path}.")
        else:
            flat[path] = value
    return flat
