"""Barlow Twins on ResNet-50, in the paper's setting: 64 px, batch 256, 200 epochs.

    python -m sp_jax.main --config=configs/barlow_twins_resnet50.py \
        --config.data.store=folder:/data/imagenet187
    python -m sp_jax.main --config=configs/barlow_twins_resnet50.py:quick  # drawings, CPU

The paper does not train this method. Its results on drawings are in docs/results.md; on the
paper's data there are none yet.
Of the paper (arXiv 2510.08722) are the data, the size of the images, the batch, the epochs
and the backbone. It leaves open the stem and the optimiser: here the standard stem
(--config.model.stem=small switches it) and the official LARS, with the
authors' rate for batches of 256.
"""

from configs import common


def get_config(variant: str = ""):
    """LARS, 0.4 x batch / 256, 10 epochs of warm-up; biases at 0.024 of the rate."""
    config = common.get_config()  # the paper's: 64 px, batch 256, 200 epochs, ResNet-50
    config.method = "barlow_twins"
    config.data.store = "folder:data/train"
    # The author gives 0.4 for a batch of 256, where linear scaling of 0.2 is too low.
    config.optimizer.learning_rate = 0.4
    config.checkpoint.every = 1000
    config.checkpoint.keep_every = 5000
    if common.is_quick(variant):
        common.quick(config)
        # As wide as a batch. Four times as wide, it did not learn (docs/quick_recipes.md).
        config.method_options.projection_dim = 128
        config.method_options.off_diagonal_weight = 0.02
        config.optimizer.learning_rate = 4.0
    return config
