"""MoCo v3 on ViT-S/8, in the paper's setting: 64 px, batch 256, 200 epochs.

    python -m sp_jax.main --config=configs/moco_v3_vit.py \
        --config.data.store=folder:/data/imagenet187
    python -m sp_jax.main --config=configs/moco_v3_vit.py:quick  # drawings, CPU

The paper (arXiv 2510.08722) has the sizes, the batch and the epochs, and does not train this
method. The recipe is the official one for a ViT-S: 12 heads, fixed position embedding,
fixed random projection of the patches.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = ""):
    """AdamW, 1.5e-4 x batch / 256, weight decay 0.1, 40 epochs of warm-up."""
    config = common.get_config()  # the paper's: 64 px, batch 256, 200 epochs
    config.method = "moco_v3"
    config.data.store = "folder:data/train"
    config.model = ConfigDict(
        {
            "name": "vit_small",
            "patch_size": 8,
            "image_size": config.image_size,
            "heads": 12,
            "position": "sincos",
            "freeze_patch_embedding": True,
        }
    )
    config.augment.crop_scale = (0.08, 1.0)
    config.method_options.temperature = 0.2
    config.method_options.projection_layers = 3
    config.method_options.predictor_norm = True
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1.5e-4
    config.optimizer.weight_decay = 0.1
    config.optimizer.warmup_epochs = 40.0
    config.checkpoint.every = 1000
    config.checkpoint.keep_every = 5000
    if common.is_quick(variant):
        common.quick(config)
        # A small ViT: 16 patches of 16 px.
        config.model.name = "vit_tiny"
        config.model.patch_size = 16
        config.model.depth = 4
        config.method_options.hidden_dim = 512
        config.method_options.projection_dim = 128
        config.method_options.momentum = 0.95
        config.optimizer.learning_rate = 1e-3
    return config
