"""Detection on scenes composed from the project's drawings: ten minutes on one core.

    python -m eval.detection --config=configs/eval/scenes_faster_rcnn_c4.py \
        --checkpoint=runs/quickstart/semantic

The protocol of VOC, smaller. Train and test scenes show drawings that no backbone of the
quickstart was trained on, and no drawing is in both.
"""

import ml_collections

from configs.eval import voc_faster_rcnn_c4


def get_config() -> ml_collections.ConfigDict:
    """Small images, a quarter-width ResNet-18, few proposals."""
    config = voc_faster_rcnn_c4.get_config()
    config.batch_size = 8
    config.total_steps = 1200
    config.remat = False
    config.model.name = "resnet18"
    config.model.width = 16

    config.data.store = "scenes"
    config.data.train_split = "train"
    config.data.test_split = "test"
    config.data.sizes = ((144, 192), (192, 256))
    config.data.test_size = (192, 256)
    config.data.max_boxes = 8

    config.detector.anchor_sizes = (32, 64, 128)
    config.detector.train_candidates = 600
    config.detector.train_proposals = 200
    config.detector.test_candidates = 300
    config.detector.test_proposals = 50
    config.detector.candidates = 200
    config.detector.rpn_samples = 64
    config.detector.head_samples = 16
    config.detector.head_foreground = 0.5

    # In so few steps AdamW gets further than SGD (docs/quick_recipes.md).
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 0.004
    config.optimizer.drops = (900, 1100)
    config.log_every = 25
    config.checkpoint.every = 300
    return config
