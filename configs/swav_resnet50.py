"""SwAV on ResNet-50, in the paper's setting: 64 px, batch 256, 200 epochs.

    python -m sp_jax.main --config=configs/swav_resnet50.py \
        --config.data.store=folder:/data/imagenet187
    python -m sp_jax.main --config=configs/swav_resnet50.py:quick  # drawings, CPU

The paper does not train this method. Its results on drawings are in docs/results.md; on the
paper's data there are none yet.
Of the paper (arXiv 2510.08722) are the data, the size of the images, the batch, the epochs
and the backbone. It leaves open the stem and the optimiser: here the standard stem
(--config.model.stem=small switches it) and the official recipe for
batches of 256: LARC, six local crops, a queue from epoch 15.
"""

from configs import common


def get_config(variant: str = ""):
    """LARC, 0.6 x batch / 256, without warm-up; 3000 prototypes."""
    config = common.get_config()  # the paper's: 64 px, batch 256, 200 epochs, ResNet-50
    config.method = "swav"
    config.data.store = "folder:data/train"
    config.model.zero_init_residual = False
    config.checkpoint.every = 1000
    config.checkpoint.keep_every = 5000
    if common.is_quick(variant):
        common.quick(config)
        # Fewer prototypes than images in a batch, and sharper codes: with epsilon 0.05 the
        # loss stays at the log of the prototypes.
        config.method_options.num_prototypes = 64
        config.method_options.epsilon = 0.02
        config.method_options.queue_size = 0
        config.method_options.hidden_dim = 512
        config.augment.local_crops = 0
        # LARC would hardly move the scales that quick() starts at 0.
        config.optimizer.name = "lars"
        config.optimizer.learning_rate = 2.0
    return config
