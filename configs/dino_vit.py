"""DINO on ViT-S/8, in the paper's setting: 64 px, batch 256, 200 epochs.

    python -m sp_jax.main --config=configs/dino_vit.py \
        --config.data.store=folder:/data/imagenet187
    python -m sp_jax.main --config=configs/dino_vit.py:quick  # drawings, CPU

The paper trains DINO; its figures for this method are not quoted here, and none have been
measured with this code on that data yet.
Of the paper (arXiv 2510.08722) are the data, the size of the images, the batch, the epochs
and the backbone. It leaves open the recipe: here the official one of 300 epochs for a ViT-S
(teacher's temperature up to 0.07, trained lengths in the last layer), with the momentum that
its authors advise for batches of 256, and eight local crops of 32 px.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = ""):
    """AdamW, 5e-4 x batch / 256, 10 epochs of warm-up; weight decay 0.04 to 0.4."""
    config = common.get_config()  # the paper's: 64 px, batch 256, 200 epochs
    config.method = "dino"
    config.data.store = "folder:data/train"
    config.model = ConfigDict(
        {
            "name": "vit_small",  # with patches of 8 px: the paper's
            "patch_size": 8,
            "image_size": config.image_size,
            "drop_path": 0.1,
        }
    )
    config.method_options.teacher_temperature = 0.07
    config.method_options.warmup_teacher_temperature_epochs = 30
    config.method_options.norm_last_layer = False
    config.method_options.momentum = 0.9995
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
