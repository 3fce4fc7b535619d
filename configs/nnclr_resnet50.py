"""NNCLR on ResNet-50, in the paper's setting: 64 px, batch 256, 200 epochs.

    python -m sp_jax.main --config=configs/nnclr_resnet50.py \
        --config.data.store=folder:/data/imagenet187
    python -m sp_jax.main --config=configs/nnclr_resnet50.py:quick  # drawings, CPU

The paper does not train this method. Its results on drawings are in docs/results.md; on the
paper's data there are none yet. On augmentation pairs (--config.data.pairing=augmented) it
finds semantic positives by itself.
Of the paper (arXiv 2510.08722) are the data, the size of the images, the batch, the epochs
and the backbone. It leaves open the stem and the optimiser: here the standard stem
(--config.model.stem=small switches it) and the LARS of NNCLR's paper.
"""

from configs import common


def get_config(variant: str = ""):
    """LARS, 0.3 x batch / 256, 10 epochs of warm-up."""
    config = common.get_config()  # the paper's: 64 px, batch 256, 200 epochs, ResNet-50
    config.method = "nnclr"
    config.data.store = "folder:data/train"
    # The 98,304 of the paper on NNCLR are more than the 29,359 pairs of an epoch: the
    # nearest neighbour would be an older view of the same image. A quarter of an epoch.
    config.method_options.queue_size = 8192
    config.checkpoint.every = 1000
    config.checkpoint.keep_every = 5000
    if common.is_quick(variant):
        common.quick(config)
        config.method_options.queue_size = 512
        config.method_options.hidden_dim = 512
        config.method_options.projection_dim = 128
        config.method_options.predictor_dim = 512
        config.optimizer.learning_rate = 4.0
    return config
