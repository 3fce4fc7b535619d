"""CIFAR-100: `cifar-100-python.tar.gz`, `cifar-100-binary.tar.gz` or a folder of these.

See `cifar` for the ids. Splits train (50,000) and test (10,000). The label is the fine one, of
100; the attribute coarse_label has 20 values.
"""

from input_pipeline.stores import cifar
from input_pipeline.stores.image_source import Source

_COARSE, _FINE = "coarse_label_names", "fine_label_names"
_LAYOUT = cifar.Layout(
    title="CIFAR-100",
    stem="cifar-100",
    folders=("cifar-100-python", "cifar-100-binary"),
    splits={"train": ("train",), "test": ("test",)},
    names="meta",
    targets={
        "coarse_label": cifar.Target("coarse_labels", _COARSE, f"{_COARSE}.txt"),
        "label": cifar.Target("fine_labels", _FINE, f"{_FINE}.txt"),
    },
)


def scan(path: str) -> Source:
    """The images of CIFAR-100; UserError if they are not there, or damaged."""
    return cifar.scan("cifar100", path, _LAYOUT)
