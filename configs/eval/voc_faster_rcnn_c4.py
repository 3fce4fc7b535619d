"""PASCAL VOC: Faster R-CNN with ResNet-50-C4, trainval 2007 + 2012, tested on test 2007.

    python -m eval.detection --config=configs/eval/voc_faster_rcnn_c4.py \
        --checkpoint=RUN --data=folder:VOCdevkit

MoCo's protocol (https://arxiv.org/abs/1911.05722, appendix A.1): 24,000 steps of 16 images,
all layers trained, batch normalisation over the whole batch. Published there, over five
trials, AP50 / AP / AP75 by VOC's 11 points: supervised 81.3 / 53.5 / 58.8, MoCo v2 (800
epochs of ImageNet at 224 px) 82.5 / 57.4 / 64.0. The paper of semantic pairs, from 64 px:
SimCLR 75.0 / 50.3 / 55.2 with SP and 73.8 / 48.9 / 53.7 with AP.

Where it differs: training images have one of four sizes and not eleven, because each is a
program of its own; images of a batch have one orientation.

Cost: not yet measured on a GPU.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Every key of a detection's config."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.dtype = "auto"  # activations: bfloat16 on accelerators, float32 on a CPU
    config.batch_size = 16  # images, over all devices
    config.total_steps = 24_000

    # Recompute the activations in a block instead of keeping them. Saving and cost at this
    # size have not been measured; without it 16 large images may not fit.
    config.remat = True

    # The network without a checkpoint: arguments of sp_jax.models.get().
    config.model = ml_collections.ConfigDict()
    config.model.name = "resnet50"

    config.data = data = ml_collections.ConfigDict()
    data.store = "folder:VOCdevkit"  # | tfds:voc | scenes; the flag --data sets it, too
    data.train_split = "VOC2007/trainval+VOC2012/trainval"
    data.test_split = "VOC2007/test"
    # Height and width of the arrays for landscape images; swapped for portrait images.
    data.sizes = ((480, 640), (592, 784), (704, 928), (800, 1056))
    data.test_size = (800, 1056)
    data.max_boxes = 64  # largest number of boxes in an image
    data.dir = ""  # prepared images; "" is $SP_JAX_DATA, else ~/.cache/sp_jax
    data.prefetch = 2  # batches read ahead, by each worker; 0 for none
    data.workers = 0  # processes that read; 0 for a thread of this process

    # Options of the network: fields of eval.detection.network.Settings.
    config.detector = ml_collections.ConfigDict()

    config.optimizer = optimizer = ml_collections.ConfigDict()
    optimizer.name = "sgd"  # | adamw, for a ViT
    optimizer.learning_rate = 0.02  # for a batch of 16; scaled to it
    optimizer.momentum = 0.9
    optimizer.weight_decay = 1e-4  # not of normalisations
    optimizer.warmup_steps = 100
    optimizer.drops = (18_000, 22_000)  # steps from which the rate is a tenth
    config.test_batch_size = 8
    config.test_every = 0  # steps; 0: at the end only

    config.log_every = 50  # steps
    config.loggers = ("tensorboard",)  # besides metrics.jsonl (docs/logging.md)
    config.checkpoint = ml_collections.ConfigDict()
    config.checkpoint.every = 1000  # steps
    config.checkpoint.keep_last = 2
    config.checkpoint.keep_every = 0  # also keep multiples of it; 0 for none

    config.profile = ml_collections.ConfigDict()
    config.profile.first_step = 20
    config.profile.steps = 0  # length of the trace; 0 for none
    return config
