"""SupCon on ResNet-50, in the paper's setting: 64 px, batch 256, 200 epochs.

    python -m sp_jax.main --config=configs/supcon_resnet50.py \
        --config.data.store=folder:/data/imagenet187
    python -m sp_jax.main --config=configs/supcon_resnet50.py:quick  # drawings, CPU

The labels are those of the pairs, so it is not self-supervised: what semantic pairs would
reach if all images of a class in the batch were positives. As the method is published, each
pair is two views of one image: --config.data.pairing=augmented.

The paper does not train this method. Its results on drawings are in docs/results.md; on the
paper's data there are none yet.
Of the paper (arXiv 2510.08722) are the data, the size of the images, the batch, the epochs
and the backbone. It leaves open the stem and the optimiser: here the standard stem
(--config.model.stem=small switches it) and all that configs/simclr_resnet50.py has, so that
the two can be compared.
"""

from configs import simclr_resnet50


def get_config(variant: str = ""):
    """As SimCLR: LARS, 0.3 x batch / 256, 10 epochs of warm-up."""
    config = simclr_resnet50.get_config(variant)
    config.method = "supcon"
    return config
