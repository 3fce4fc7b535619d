"""Features of many images: a frozen backbone, run over whole stores."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np

from sp_jax import progress
from sp_jax.errors import UserError
from sp_jax.tokens import check_tokens

FeaturesFn = Callable[[np.ndarray], Any]


def map_rows(
    fn: Callable[[np.ndarray], Any], count: int, batch_size: int, what: str
) -> Any:
    """Call a function on blocks of row numbers, int64 [batch_size], and join what it returns.

    It returns one or several arrays with the leading axis batch_size; joined, that axis has
    the length count. `what` names the work, as in `progress.show`.

    The last block is padded with its last row, so a jitted function compiles once; the
    padding is cut off again. A block is fetched while the next one is computed.
    """
    blocks, waiting = [], None
    # A training loop may forbid implicit transfers; here they are meant.
    with jax.transfer_guard("allow"), progress.show(what, count) as work:
        for start in range(0, count, batch_size):
            rows = np.minimum(np.arange(start, start + batch_size), count - 1)
            started = fn(rows)
            if waiting is not None:
                blocks.append(jax.device_get(waiting))
                work.update(batch_size)
            waiting = started
        blocks.append(jax.device_get(waiting))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *blocks)


class Images(Protocol):
    """Stored images; `input_pipeline.stores.image_store.ImageStore` is a store of them."""

    name: str
    split: str
    fingerprint: str

    def __len__(self) -> int:
        """The number of images."""

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Pixels uint8 [len(rows), S, S, 3]."""


class Extractor:
    """Features of whole image stores, each store run through the backbone once.

    Make a new one whenever the backbone's parameters have changed.

    Attributes:
      backbone: uint8 [batch_size, S, S, 3] -> float [batch_size, D], the frozen network
        in evaluation mode: a `sp_jax.backbone.Backbone`, or any such function.
      batch_size: images per call; the last call is padded to it.
    """

    def __init__(self, backbone: FeaturesFn, batch_size: int = 256) -> None:
        self.backbone = backbone
        self.batch_size = batch_size
        self._memo: dict[str, np.ndarray] = {}
        self._others: dict[str, Extractor] = {}

    @functools.cached_property
    def fingerprint(self) -> str | None:
        """`Backbone.identity`; None for a plain function of images.

        If the state is split over processes, all of them must call it.
        """
        identity = getattr(self.backbone, "identity", None)
        return identity() if identity else None

    def of_tokens(self, tokens: str) -> "Extractor":
        """The extractor of other features of a vision transformer, see `sp_jax.tokens`.

        Raises:
          UserError: there are no such tokens, or the backbone does not have them.
        """
        if tokens == "cls":
            return self
        if tokens not in self._others:
            check_tokens(tokens)
            module = getattr(self.backbone, "module", None)
            if tokens not in getattr(module, "token_kinds", ()):
                raise UserError(
                    f"Only vision transformers have tokens={tokens}: use cls."
                )
            try:
                module = module.clone(tokens=tokens)
            except ValueError as error:
                raise UserError(str(error)) from error
            backbone = dataclasses.replace(self.backbone, module=module)
            self._others[tokens] = Extractor(backbone, self.batch_size)
        return self._others[tokens]

    def extract(self, store: Images) -> np.ndarray:
        """Features of every image of a store.

        Returns:
          float32 [len(store), D], read-only because evaluators share it.

        Raises:
          ValueError: the backbone returns another shape than [batch_size, D].
          UserError: a feature is NaN or infinite.
        """
        if store.fingerprint not in self._memo:
            name = f"{store.name} {store.split}"
            features = self._map(store.read, len(store), name)
            features.flags.writeable = False
            self._memo[store.fingerprint] = features
        return self._memo[store.fingerprint]

    def map(self, images: np.ndarray) -> np.ndarray:
        """Features float32 [n, D] of images uint8 [n, S, S, 3] outside a store, for any n >= 1.

        They are not cached. Errors are those of `extract`.
        """
        return self._map(lambda rows: images[rows], len(images), "these images")

    def _map(
        self, read: Callable[[np.ndarray], np.ndarray], count: int, name: str
    ) -> np.ndarray:
        def call(rows):
            images = read(rows)
            features = self.backbone(images)
            if features.ndim != 2 or len(features) != len(images):
                raise ValueError(
                    f"A backbone must return [{len(images)}, D] for {len(images)} images, "
                    f"not {list(features.shape)}."
                )
            return features

        features = np.array(
            map_rows(call, count, self.batch_size, f"features of {name}"), np.float32
        )
        if not np.isfinite(features).all():
            raise UserError(
                f"The backbone gives NaN or infinite features on {name}: evaluate an "
                "earlier checkpoint, or train with a lower learning rate."
            )
        return features


def normalize(features: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, float32 [N, D]; rows of zeros stay zero."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return (features / np.maximum(length, 1e-12)).astype(np.float32)
