"""DINO on ResNet-50, in the paper's setting: 64 px, batch 256, 200 epochs.

    python -m sp_jax.main --config=configs/dino_resnet50.py \
        --config.data.store=folder:/data/imagenet187
    python -m sp_jax.main --config=configs/dino_resnet50.py:quick  # drawings, CPU

The paper does not train DINO on a ResNet. Results on drawings are in docs/results.md; on the
paper's data there are none yet.
Of the paper (arXiv 2510.08722) are the data, the size of the images, the batch, the epochs
and the backbone. It leaves open the stem and the optimiser: here the standard stem
(--config.model.stem=small switches it) and the official recipe for a ResNet-50
(SGD with its schedules).
"""

from configs import common


def get_config(variant: str = ""):
    """SGD, 0.03 x batch / 256, 10 epochs of warm-up; eight local crops."""
    config = common.get_config()  # the paper's: 64 px, batch 256, 200 epochs, ResNet-50
    config.method = "dino"
    config.data.store = "folder:data/train"
    config.model.zero_init_residual = False
    config.method_options.momentum = 0.9995  # the authors' advice for batches of 256
    config.augment.crop_scale = (0.14, 1.0)
    config.augment.local_crop_scale = (0.05, 0.14)
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.03
    config.optimizer.weight_decay = 1e-4
    config.optimizer.final_weight_decay = 1e-4
    config.optimizer.final_factor = 1e-6 / 0.03  # the official last rate is 1e-6
    config.checkpoint.every = 1000
    config.checkpoint.keep_every = 5000
    if common.is_quick(variant):
        common.quick(config)
        config.method_options.out_dim = 256
        config.method_options.hidden_dim = 512
        config.method_options.bottleneck_dim = 128
        config.method_options.momentum = 0.99
        # Without normalisation in the head, or with the teacher's 0.04, it ends at the log
        # of its outputs.
        config.method_options.head_norm = True
        config.method_options.teacher_temperature = 0.02
        config.method_options.warmup_teacher_temperature = 0.02
        config.augment.local_crops = 0
        config.optimizer.name = "lars"
        config.optimizer.learning_rate = 4.0
    return config
