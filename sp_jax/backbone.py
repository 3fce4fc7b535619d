"""A trained backbone, frozen: images in, features out; `sp_jax.load` makes one."""

import contextlib
import dataclasses
import functools
import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from sp_jax.augment import preprocess
from sp_jax.sharding import by_batch, local_copy, make_mesh, replicated

PyTree = Any
Colour = tuple[float, float, float]


def fingerprint(variables: PyTree) -> str:
    """SHA-256 hex over names, types, shapes and bytes of variables."""
    whole = hashlib.sha256()
    for path, value in jax.tree.leaves_with_path(jax.device_get(local_copy(variables))):
        value = np.asarray(value)
        about = jax.tree_util.keystr(path), value.dtype.name, value.shape
        whole.update(repr(about).encode())
        whole.update(np.ascontiguousarray(value).view(np.uint8))
    return whole.hexdigest()


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A network, its variables, and how images are prepared for it.

    Attributes:
        module: a backbone of `sp_jax.models`.
        variables: its "params" and "batch_stats".
        size: side of the images that it is given, in pixels; others are resized.
        mean: of each channel of values in [0, 1], subtracted.
        std: of each channel, divided by.
        info: where it comes from: "config", "step", "versions" of a checkpoint.
        heads: "params" and "batch_stats" of what was trained on it, by the names of the parts,
            such as "projector"; {} where only the backbone is known.
    """

    module: nn.Module
    variables: PyTree
    size: int
    mean: Colour
    std: Colour
    info: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    heads: PyTree = dataclasses.field(default_factory=dict)

    def network(self, heads: bool = False) -> PyTree:
        """Its variables, and those of the heads if asked, as `Method.start_from` takes them."""
        return {
            kind: {"backbone": tree, **(self.heads.get(kind, {}) if heads else {})}
            for kind, tree in self.variables.items()
        }

    def apply(self, variables: PyTree, images: jax.Array) -> jax.Array:
        """Features float32 [n, D] of images uint8 [n, S, S, 3], as a pure function."""
        return self.module.apply(variables, self.preprocess(images), False)

    def preprocess(self, images: jax.Array) -> jax.Array:
        """Images uint8 [n, S, S, 3] as the module takes them, float32 [n, size, size, 3]."""
        return preprocess(images, self.size, self.mean, self.std)

    def fingerprint(self) -> str:
        """The `fingerprint` of the variables."""
        return fingerprint(self.variables)

    def identity(self) -> str:
        """SHA-256 hex over all that determines the features: variables, network and colours.

        The compute dtype and `remat` do not count. Options that matter in training alone, such
        as the rate of stochastic depth, do.
        """
        network = {
            field.name: getattr(self.module, field.name)
            for field in dataclasses.fields(self.module)
            if field.name not in ("dtype", "remat", "parent", "name")
        }
        colours = [tuple(map(float, values)) for values in (self.mean, self.std)]
        about = type(self.module).__name__, network, int(self.size), *colours
        # A function's address differs from process to process.
        text = re.sub(r" at 0x[0-9a-f]+", "", repr(about))
        return hashlib.sha256(f"{self.fingerprint()} {text}".encode()).hexdigest()

    @property
    def stored(self) -> tuple[int, str]:
        """How its images were stored: the side in pixels, and how they were made square."""
        data = self.info.get("config", {}).get("data") or self.info.get("images") or {}
        return data.get("image_size", self.size), data.get("resize", "crop")

    def untrained(self) -> "Backbone":
        """The same network with random variables, from seed 0, at step 0."""
        image = np.zeros((1, self.size, self.size, 3), np.uint8)

        @jax.jit
        def init(key: jax.Array) -> PyTree:
            return self.module.init(key, self.preprocess(image), False)

        variables = init(jax.random.key(0, impl="rbg"))
        info = {**self.info, "step": 0}
        return dataclasses.replace(self, variables=variables, info=info, heads={})

    @contextlib.contextmanager
    def untouched(self) -> Iterator[None]:
        """A context for an evaluation, which checks at its end that no variable has changed.

        Raises:
            RuntimeError: a variable has changed, so the measured numbers are worthless.
        """
        before = self.fingerprint()
        yield
        if self.fingerprint() != before:
            raise RuntimeError(
                "The backbone changed during its evaluation: this is a bug in the "
                "evaluation."
            )

    def __call__(self, images: np.ndarray) -> jax.Array:
        """Features float32 [n, D] of images uint8 [n, S, S, 3], on all local devices.

        Each n is compiled once: give batches of one size.
        """
        mesh, variables, features = self._compiled
        n, devices = len(images), mesh.size
        if n % devices:
            rows = np.minimum(np.arange(-(-n // devices) * devices), n - 1)
            images = np.asarray(images)[rows]
        return features(variables, jax.device_put(images, by_batch(mesh)))[:n]

    @functools.cached_property
    def _compiled(self):
        # A copy for the devices of this process: each evaluates by itself.
        mesh = make_mesh(jax.local_devices())
        variables = jax.device_put(local_copy(self.variables), replicated(mesh))
        return mesh, variables, jax.jit(self.apply)
