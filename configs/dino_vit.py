"""DINO on ViT-S/8, in the frame of the paper: 64 px, batch 256, 200 epochs.

    python -m sp_jax.main --config=configs/dino_vit.py \
        --config.data.store=folder:/data/imagenet187
    python -m sp_jax.main --config=configs/dino_vit.py:quick  # drawings, CPU

The paper (arXiv 2510.08722) reports linear accuracies on CIFAR-10, CIFAR-100 and STL-10 of
81.8 / 65.3 / 82.1 with semantic and 81.1 / 64.5 / 79.2 with augmentation pairs. Not
reproduced with this code yet. The data, the sizes, the batch and the epochs are the
paper's; the recipe is the official one for a ViT-S, with eight local crops of 32 px.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = ""):
    """AdamW, 5e-4 x batch / 256, 10 epochs of warm-up; weight decay 0.04 to 0.4."""
    config = common.get_config()
    config.method = "dino"
    config.data.store = "folder:data/train"
    config.model = ConfigDict(
        {
            "name": "vit_small",
            "patch_size": 8,
            "image_size": config.image_size,
            "drop_path": 0.1,
        }
    )
    config.method_options.teacher_temperature = 0.07
    config.method_options.warmup_teacher_temperature_epochs = 30
    config.checkpoint.every = 1000
    config.checkpoint.keep_every = 5000
    if common.is_quick(variant):
        common.quick(config)
        # A small ViT: 16 patches of 16 px.
        config.model.name = "vit_tiny"
        config.model.patch_size = 16
        config.model.depth = 4
        config.method_options.out_dim = 1024
        config.method_options.hidden_dim = 512
        config.method_options.bottleneck_dim = 128
        config.method_options.warmup_teacher_temperature_epochs = 0
        config.method_options.teacher_temperature = 0.04
        config.method_options.momentum = 0.95
        config.augment.local_crops = 2
        config.augment.local_crop_scale = (0.2, 0.5)
    return config
