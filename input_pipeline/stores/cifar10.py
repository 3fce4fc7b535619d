"""CIFAR-10: `cifar-10-python.tar.gz`, `cifar-10-binary.tar.gz` or a folder of these.

See `cifar` for the ids. Splits train (50,000) and test (10,000), ten classes.
"""

from input_pipeline.stores import cifar
from input_pipeline.stores.image_source import Source

_LAYOUT = cifar.Layout(
    title="CIFAR-10",
    stem="cifar-10",
    folders=("cifar-10-batches-py", "cifar-10-batches-bin"),
    splits={
        "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
        "test": ("test_batch",),
    },
    names="batches.meta",
    targets={"label": cifar.Target("labels", "label_names", "batches.meta.txt")},
)


def scan(path: str) -> Source:
    """The images of CIFAR-10; UserError if they are not there, or damaged."""
    return cifar.scan("cifar10", path, _LAYOUT)
