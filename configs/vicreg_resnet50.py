"""VICReg on ResNet-50, in the paper's setting: 64 px, batch 256, 200 epochs.

    python -m sp_jax.main --config=configs/vicreg_resnet50.py \
        --config.data.store=folder:/data/imagenet187
    python -m sp_jax.main --config=configs/vicreg_resnet50.py:quick  # drawings, CPU

The paper trains VICReg; its figures for this method are not quoted here, and none have been
measured with this code on that data yet.
Of the paper (arXiv 2510.08722) are the data, the size of the images, the batch, the epochs
and the backbone. It leaves open the stem and the optimiser: here the standard stem
(--config.model.stem=small switches it) and the official LARS, with the
authors' rate for batches of 256.
"""

from configs import common


def get_config(variant: str = ""):
    """LARS, 0.5 x batch / 256, 10 epochs of warm-up."""
    config = common.get_config()  # the paper's: 64 px, batch 256, 200 epochs, ResNet-50
    config.method = "vicreg"
    config.data.store = "folder:data/train"
    config.checkpoint.every = 1000
    config.checkpoint.keep_every = 5000
    if common.is_quick(variant):
        common.quick(config)
        config.method_options.projection_dim = 512
        config.optimizer.learning_rate = 4.0
    return config
