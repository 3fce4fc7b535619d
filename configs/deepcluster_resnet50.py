"""DeepCluster-v2 on ResNet-50, in the paper's setting: 64 px, batch 256, 200 epochs.

    python -m sp_jax.main --config=configs/deepcluster_resnet50.py \
        --config.data.store=folder:/data/imagenet187
    python -m sp_jax.main --config=configs/deepcluster_resnet50.py:quick  # drawings, CPU

The paper does not train this method. Its results on drawings are in docs/results.md; on the
paper's data there are none yet.
Of the paper (arXiv 2510.08722) are the data, the size of the images, the batch, the epochs
and the backbone. It leaves open the stem and the optimiser: here the standard stem
(--config.model.stem=small switches it) and the official LARC, scaled to a
batch of 256, and two global views.
"""

from configs import common


def get_config(variant: str = ""):
    """LARC, 0.3 x batch / 256, 10 epochs of warm-up; 3 heads of 500 clusters."""
    config = common.get_config()  # the paper's: 64 px, batch 256, 200 epochs, ResNet-50
    config.method = "deepcluster"
    config.data.store = "folder:data/train"
    config.model.zero_init_residual = False
    # The official 3000 clusters are for 1.28 million images.
    config.method_options.num_clusters = 500
    config.checkpoint.every = 1000
    config.checkpoint.keep_every = 5000
    if common.is_quick(variant):
        common.quick(config)
        config.method_options.num_clusters = 200
        config.method_options.hidden_dim = 512
        # LARC would hardly move the scales that quick() starts at 0.
        config.optimizer.name = "lars"
        config.optimizer.learning_rate = 4.0
    return config
