"""Every key of a config, with its default. A recipe starts from here.

A placeholder (None) means the method's own default; see `sp_jax/methods/NAME.py`.
"""

import ml_collections
from ml_collections.config_dict import placeholder


def get_config() -> ml_collections.ConfigDict:
    """The paper's frame: ResNet-50, 64 px, batch 256, 200 epochs."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.method = "simclr"
    config.method_options = ml_collections.ConfigDict()  # arguments of its create()
    config.dtype = "auto"  # activations: bfloat16 on accelerators, float32 on a CPU
    config.image_size = 64  # side of the views in pixels
    config.batch_size = 256  # pairs, over all devices
    config.epochs = 200.0

    config.model = ml_collections.ConfigDict()  # arguments of sp_jax.models.get()
    config.model.name = "resnet50"
    config.model.width = 64
    config.model.stem = "imagenet"
    config.model.zero_init_residual = True

    config.data = data = ml_collections.ConfigDict()
    data.store = "emoji"  # or folder:DIR
    data.split = "all"
    data.image_size = 64  # side of the stored images
    data.dir = ""  # prepared images; "" is $SP_JAX_DATA, else ~/.cache/sp_jax
    data.pairing = "semantic"  # | augmented | mixed
    data.semantic_fraction = 0.5  # of the pairs, if mixed
    data.pairs = ""  # CSV of a pair table; "" makes one from the labels
    data.rounds = 1  # pairs an image in the table that is made
    data.prefetch = 2  # batches read ahead; 0 for none

    # Changes to every view of the method. 0 switches an operation off; the paper's
    # "crop only" is jitter, grayscale, blur and solarize at 0.
    config.augment = augment = ml_collections.ConfigDict()
    augment.crop_scale = placeholder(tuple)
    augment.crop_ratio = placeholder(tuple)
    augment.interpolation = placeholder(str)
    for name in (
        *("flip", "jitter", "brightness", "contrast", "saturation", "hue"),
        *("grayscale", "blur", "solarize", "solarize_threshold"),
    ):
        augment[name] = placeholder(float)
    augment.blur_sigma = placeholder(tuple)
    augment.blur_kernel = placeholder(int)
    augment.mean = placeholder(tuple)
    augment.std = placeholder(tuple)

    config.optimizer = optimizer = ml_collections.ConfigDict()
    optimizer.name = placeholder(str)  # lars | sgd | adamw
    optimizer.learning_rate = placeholder(float)  # for a batch of 256; scaled to it
    optimizer.weight_decay = placeholder(float)
    optimizer.momentum = placeholder(float)
    optimizer.warmup_epochs = placeholder(float)

    config.log_every = 50  # steps
    config.checkpoint = ml_collections.ConfigDict()
    config.checkpoint.every = 500  # steps
    config.checkpoint.keep_last = 2
    config.checkpoint.keep_every = 0  # also keep multiples of it; 0 for none

    # Named evaluators: a type of eval/, its options, and every_epochs (0: at the end).
    config.evals = ml_collections.ConfigDict()

    config.profile = ml_collections.ConfigDict()
    config.profile.first_step = 20
    config.profile.steps = 0  # length of the trace; 0 for none
    return config
