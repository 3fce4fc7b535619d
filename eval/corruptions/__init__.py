"""Controlled corruptions of images, in four families, from none to severe.

`FAMILIES` are all of them; docs/evaluation.md says what a level of each is.

`background` and `surface` need to know where the object is, so they need a store with
alpha. All randomness of an image is drawn from the seed, the kind and the image's number:
no batch and no other image plays a part, and an image keeps its draws over all levels.

Example:
  >>> store = open_store("emoji", "probe_test")  # doctest: +SKIP
  >>> scene = corruptions.make_scene(store, np.arange(100), seed=0)  # doctest: +SKIP
  >>> corruptions.apply("occlusion", "patches", scene, 0.25, seed=0)  # doctest: +SKIP
"""

import zlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eval.corruptions import background, illumination, occlusion, patterns, texture
from eval.corruptions.scene import Scene
from eval.corruptions.scene import check_images as check_images
from eval.corruptions.scene import has_alpha as has_alpha
from eval.corruptions.scene import make_scene as make_scene
from sp_jax.features import map_rows

# Images a call. It bounds the memory of the Fourier transforms.
_BATCH = 256


class Kind(NamedTuple):
    """One way to corrupt an image."""

    # (key, scene of one image in float32, level) -> float32 [S, S, 3] in [0, 255], not yet
    # rounded or cut.
    change: Callable[[jax.Array, Scene, jax.Array], jax.Array]
    levels: tuple[float, ...]  # its levels; the first is 0, where nothing changes
    unit: str  # what a level counts, for axes and tables
    needs_alpha: bool = False  # whether it must know where the object is


_BLEND = (0.0, 0.25, 0.5, 0.75, 1.0)

FAMILIES: dict[str, dict[str, Kind]] = {
    "occlusion": {
        "patches": Kind(occlusion.patches, (0, 0.1, 0.25, 0.5, 0.75), "share dropped"),
    },
    "background": {
        p.__name__: Kind(partial(background.exchange, p), _BLEND, "blend", True)
        for p in (patterns.colour, patterns.gradient, patterns.stripes, patterns.noise)
    },
    "texture": {
        "shuffle": Kind(texture.shuffle, (0, 2, 4, 8, 16), "squares per side"),
        "amplitude": Kind(texture.amplitude, _BLEND, "blend"),
        "surface": Kind(texture.surface, _BLEND, "blend", needs_alpha=True),
    },
    "illumination": {
        "gamma": Kind(illumination.gamma, (0, 0.5, 1, 1.5, 2), "octaves"),
        "brightness": Kind(illumination.brightness, (0, 0.5, 1, 1.5, 2), "stops"),
        "temperature": Kind(illumination.temperature, (0, 24, 48, 72, 96), "mired"),
        "shading": Kind(
            illumination.shading, (0, 0.25, 0.5, 0.75, 0.9), "light missing"
        ),
    },
}


def families_of(has_alpha: bool) -> dict[str, dict[str, Kind]]:
    """The families, each with the kinds that are possible with or without alpha."""
    found = {
        family: {n: k for n, k in kinds.items() if has_alpha or not k.needs_alpha}
        for family, kinds in FAMILIES.items()
    }
    return {family: kinds for family, kinds in found.items() if kinds}


def apply(family: str, kind: str, scene: Scene, level: float, seed: int) -> np.ndarray:
    """Change the images of a scene by a kind of a family: uint8 [n, S, S, 3].

    The level is any number from 0, where the images come back bit for bit, to the last of the
    kind's levels; `shuffle` takes whole numbers. With the kind and an image's number, the seed
    is all of its randomness. ValueError if the kind needs alpha, and the scene has none.
    """
    change = FAMILIES[family][kind]
    if change.needs_alpha and scene.alpha is None:
        raise ValueError(f"{family}/{kind} needs images with alpha.")
    if level == 0:
        return scene.images
    salt = np.uint32(zlib.crc32(f"{family}/{kind}".encode()))

    def block(rows: np.ndarray) -> jax.Array:
        part = jax.tree.map(lambda x: x[rows], scene)
        return _change(change.change, np.uint32(seed), salt, part, np.float32(level))

    count = len(scene.images)
    return map_rows(block, count, min(_BATCH, count), f"{family}/{kind} {level:g}")


@partial(jax.jit, static_argnames="change")
def _change(
    change: Callable[[jax.Array, Scene, jax.Array], jax.Array],
    seed: jax.Array,
    salt: jax.Array,
    scene: Scene,
    level: jax.Array,
) -> jax.Array:
    key = jax.random.fold_in(jax.random.key(seed), salt)

    def one(scene: Scene) -> jax.Array:
        own = jax.random.fold_in(key, scene.numbers)
        scene = jax.tree.map(lambda x: x.astype(jnp.float32), scene)
        changed = change(own, scene, level)
        return jnp.clip(jnp.round(changed), 0, 255).astype(jnp.uint8)

    return jax.vmap(one)(scene)
