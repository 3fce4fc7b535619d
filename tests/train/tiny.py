"""A config small enough to train in a test, on the embedded drawings."""

from configs import common


def get_config():
    config = common.get_config()
    config.image_size = 16
    config.batch_size = 16
    config.epochs = 0.1  # 22 steps of 226
    config.model.name = "resnet18"
    config.model.width = 8
    config.method_options.projection_layers = 2
    config.method_options.projection_dim = 16
    config.data.split = "pretrain"
    config.optimizer.warmup_epochs = 0.02
    config.log_every = 4
    config.checkpoint.every = 5
    config.checkpoint.keep_last = 2
    config.evals.knn = dict(
        type="knn",
        dataset="emoji",
        train_split="probe_train",
        test_split="probe_test",
        target="category",
        every_epochs=8 / 226,
    )
    return config
