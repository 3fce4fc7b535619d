"""A run of `photographs.py:long`: `configs/tiny_imagenet.py:quick`, evaluated on the way.

    python -m sp_jax.main --config=docs/studies/photographs_run.py \
        --config.data.store=folder:/data/photographs187 --config.data.split=all \
        --config.evals.kept.dataset=folder:/data/kept \
        --config.evals.probe_cifar10.dataset=folder:/data/cifar10

The learning rate falls to 0 at the last step alone. So a number on the way is not that of a
run which ends there.
"""

from configs import tiny_imagenet


def get_config():
    """30 epochs of pairs: kNN on the kept images every epoch, the probe every ten."""
    config = tiny_imagenet.get_config("quick")
    config.epochs = 30.0
    splits = {"train_split": "train", "test_split": "test"}
    config.evals.kept = splits | {"type": "knn", "dataset": "folder:data/kept"}
    config.evals.kept.every_epochs = 1.0
    probe = {"type": "linear_probe", "dataset": "folder:data/cifar10"}
    config.evals.probe_cifar10 = splits | probe | {"every_epochs": 10.0}
    return config
