"""MoCo v2 on ResNet-50, in the paper's setting: 64 px, batch 256, 200 epochs.

    python -m sp_jax.main --config=configs/moco_v2_resnet50.py \
        --config.data.store=folder:/data/imagenet187
    python -m sp_jax.main --config=configs/moco_v2_resnet50.py:quick  # drawings, CPU

The paper does not train this method. Its results on drawings are in docs/results.md; on the
paper's data there are none yet.
Of the paper (arXiv 2510.08722) are the data, the size of the images, the batch, the epochs
and the backbone. It leaves open the stem and the optimiser: here the standard stem
(--config.model.stem=small switches it) and the official SGD.
"""

from configs import common


def get_config(variant: str = ""):
    """SGD, 0.03 x batch / 256, on all parameters, without warm-up."""
    config = common.get_config()  # the paper's: 64 px, batch 256, 200 epochs, ResNet-50
    config.method = "moco_v2"
    config.data.store = "folder:data/train"
    config.model.zero_init_residual = False
    # The official 65,536 keys are more than the 29,359 pairs of an epoch: the queue would
    # hold two older keys of every query.
    config.method_options.queue_size = 16384
    config.checkpoint.every = 1000
    config.checkpoint.keep_every = 5000
    if common.is_quick(variant):
        common.quick(config)
        # Two batches: probably the keys of a longer queue are so old in a short run that a
        # query tells its key by its age.
        config.method_options.queue_size = 256
        config.method_options.momentum = 0.99
        config.method_options.bn_groups = 4  # of 32 images, as officially
        config.method_options.hidden_dim = 512
        config.optimizer.name = "lars"
        config.optimizer.learning_rate = 4.0
    return config
