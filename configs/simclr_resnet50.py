"""SimCLR on ResNet-50, in the paper's setting: 64 px, batch 256, 200 epochs.

    python -m sp_jax.main --config=configs/simclr_resnet50.py \
        --config.data.store=folder:/data/imagenet187

The folder holds one folder of images per class; pairs are drawn within a class (each image
once first and once second), or read from a curated table with --config.data.pairs=FILE.
The matched augmentation-pair run: --config.data.pairing=augmented (of a table in which each
image occurs once it shows the first images alone; "both" shows all: docs/data.md).

Of the paper (arXiv 2510.08722) are the data, the size of the images, the batch, the epochs
and the backbone. It leaves open the stem, the optimiser, the temperature and the head: here
the standard stem (--config.model.stem=small switches it), the official LARS with the rate
scaled linearly (0.3 x batch / 256; the square root, 0.075 x sqrt(batch), would be 1.2), and
the official temperature and head for ImageNet.

Cost: the paper needed 4.5 h on one A100 (arXiv 2510.08722) for 29,359 pairs, 363 pairs/s; an
earlier commit of this code made 25,181 pairs/s on one H200 (docs/performance.md).
Ablations of the paper:
    no grayscale: --config.augment.grayscale=0
    crop only:    --config.augment.jitter=0 --config.augment.grayscale=0 \
                  --config.augment.blur=0
"""

from configs import common


def get_config(variant: str = ""):
    """The official recipe's optimiser: LARS, 0.3 x batch / 256, 10 epochs of warm-up."""
    config = common.get_config()  # the paper's: 64 px, batch 256, 200 epochs, ResNet-50
    config.method = "simclr"
    config.data.store = "folder:data/train"
    config.method_options.temperature = 0.1
    config.checkpoint.every = 1000
    config.checkpoint.keep_every = 5000
    if common.is_quick(variant):
        common.quick(config)
        # As configs/quickstart.py.
        config.method_options.temperature = 0.5
        config.method_options.projection_layers = 2
        config.optimizer.learning_rate = 4.0
    return config
