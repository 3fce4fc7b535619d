"""A small version of the study: SimCLR on the embedded drawings, on two CPU cores.

    python -m sp_jax.main --config=configs/quickstart.py
    python -m sp_jax.main --config=configs/quickstart.py --config.data.pairing=augmented \
        --workdir=runs/quickstart_augmented

`make quickstart` runs both and compares them. Cost and result: docs/results.md.
"""

from configs import common


def get_config():
    """A quarter-width ResNet-18, and most of the official recipe for CIFAR-10."""
    config = common.quick(common.get_config(), epochs=8.0)
    config.method = "simclr"
    config.method_options.temperature = 0.5
    config.method_options.projection_layers = 2
    # A short run wants a higher rate than the official 0.3; docs/quick_recipes.md says how this
    # recipe was chosen.
    config.optimizer.learning_rate = 4.0
    return config
