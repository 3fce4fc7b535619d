"""PIRL on ResNet-50, in the paper's setting: 64 px, batch 256, 200 epochs.

    python -m sp_jax.main --config=configs/pirl_resnet50.py \
        --config.data.store=folder:/data/imagenet187
    python -m sp_jax.main --config=configs/pirl_resnet50.py:quick  # drawings, CPU

The paper does not train this method. Its results on drawings are in docs/results.md; on the
paper's data there are none yet.
Of the paper (arXiv 2510.08722) are the data, the size of the images, the batch, the epochs
and the backbone. It leaves open the stem and the optimiser: here the standard stem
(--config.model.stem=small switches it) and the official SGD, with fewer
negatives.
"""

from configs import common


def get_config(variant: str = ""):
    """SGD, 0.03 x batch / 256, without warm-up; NCE with 8192 negatives."""
    config = common.get_config()  # the paper's: 64 px, batch 256, 200 epochs, ResNet-50
    config.method = "pirl"
    config.data.store = "folder:data/train"
    config.model.zero_init_residual = False
    # The official 32,000 negatives are for 1.28 million images.
    config.method_options.num_negatives = 8192
    config.checkpoint.every = 1000
    config.checkpoint.keep_every = 5000
    if common.is_quick(variant):
        common.quick(config)
        config.method_options.num_negatives = 1024
        # The variant with MLP heads. A memory is renewed about twice an epoch: the rate is
        # lower than elsewhere, so that it is not too old.
        config.method_options.loss = "info_nce"
        config.method_options.temperature = 0.1
        config.method_options.hidden_dim = 512
        config.method_options.projection_norm = True
        config.optimizer.name = "lars"
        config.optimizer.learning_rate = 2.0
    return config
