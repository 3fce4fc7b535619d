"""The study in small: SimCLR on the embedded drawings, on a CPU in two minutes.

    python -m sp_jax.main --config=configs/quickstart.py
    python -m sp_jax.main --config=configs/quickstart.py --config.data.pairing=augmented
"""

from configs import common


def get_config():
    """A quarter-width ResNet-18, 32 px views of 64 px drawings."""
    config = common.get_config()
    config.image_size = 32
    config.batch_size = 128
    config.epochs = 25.0
    config.model.name = "resnet18"
    config.model.width = 32
    config.method_options.temperature = 0.2
    config.method_options.projection_layers = 2

    config.data.store = "emoji"
    config.data.split = "pretrain"

    config.optimizer.name = "lars"
    config.optimizer.learning_rate = 2.0
    config.optimizer.warmup_epochs = 2.0

    config.log_every = 20
    config.checkpoint.every = 100

    probe = {"train_split": "probe_train", "test_split": "probe_test"}
    for target in ("category", "subcategory"):
        config.evals[f"knn_{target}"] = dict(
            type="knn", dataset="emoji", target=target, every_epochs=5, **probe
        )
        config.evals[f"probe_{target}"] = dict(
            type="linear_probe", dataset="emoji", target=target, **probe
        )
    config.evals.retrieval = dict(
        type="retrieval",
        dataset="emoji",
        splits=("probe_train", "probe_test"),
        across="artist",
        every_epochs=5,
    )
    return config
