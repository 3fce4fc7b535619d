r"""Linear CKA: how similar the features of two checkpoints are, whatever their widths.

    CKA = |X^T Y|^2 / (|X^T X| |Y^T Y|), Frobenius norms, columns of X and Y centred

1 where the features differ by a rotation and a scale only. Kornblith et al., Similarity of
Neural Network Representations Revisited, https://arxiv.org/abs/1905.00414. It is exact:
all images at once, and products of the size of the features, not of the images.

  python -m eval.cka --checkpoint=RUN --other=RUN --dataset=emoji --split=probe_test
"""

import dataclasses
import sys
from typing import Any

import numpy as np

from eval import cli
from eval.evaluator import Evaluator, Number
from eval.metrics import gram
from eval.options import read_options
from eval.task import StoreOptions
from sp_jax.errors import UserError
from sp_jax.features import Extractor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(StoreOptions):
    """The options, for a config or the command line.

    Attributes:
      other: run, checkpoint or weights to compare with; it gets the same stored images.
      split: the images to compare on.
    """

    other: str
    split: str


def create(**options: Any) -> Evaluator:
    """An evaluator that returns {"cka": in [0, 1]}; its errors are those of `linear_cka`."""
    settings = read_options(Options, options)
    store = settings.open(settings.split)
    # Imported late: the library of evaluators needs no trainer.
    import sp_jax

    other = Extractor(sp_jax.load(settings.other))

    def evaluate(extractor: Extractor, step: int) -> dict[str, float]:
        return {"cka": linear_cka(extractor.extract(store), other.extract(store))}

    # The number belongs to the weights of both.
    protocol = (
        f"linear CKA with {settings.other}, step {other.backbone.info['step']} "
        f"(weights {other.fingerprint[:12]}), on {store.name} {store.split} "
        f"({len(store):,} images)"
    )
    return Evaluator(protocol, evaluate, (Number("cka", "neither"),), (store,))


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Linear CKA of features [N, D] and [N, E] of the same images, in [0, 1].

    UserError if all rows of one of them are equal.

    Example:
      >>> x = np.array([[1.0, 0], [0, 1], [2, 3]])
      >>> round(linear_cka(x, 5 - 2 * x[:, ::-1]), 6)
      1.0
    """
    x_mean, y_mean = (z.mean(axis=0, dtype=np.float64) for z in (x, y))
    cross = np.linalg.norm(gram(x, y, x_mean, y_mean))
    spread = [np.linalg.norm(gram(z, z, m, m)) for z, m in ((x, x_mean), (y, y_mean))]
    for size, mean in zip(spread, (x_mean, y_mean), strict=True):
        if size <= 1e-12 * len(x) * mean @ mean:  # Rounding noise about a constant.
            raise UserError("CKA needs features that differ between images.")
    return float(cross**2 / np.prod(spread))


if __name__ == "__main__":
    cli.main("cka", sys.modules[__name__])
