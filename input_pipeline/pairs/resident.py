"""Pixels and pairs in the memory of the accelerator, for stores that fit there.

The only module of this package that imports jax. The batches are those of the stream.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from input_pipeline.pairs.sampling import Sampler
from input_pipeline.stores import ImageStore
from sp_jax.errors import UserError

PLACEMENTS = ("auto", "device", "stream")

# Share of the memory that is free before the network is made; the rest is for activations.
SHARE = 0.25


class DevicePixels:
    """A store and its pairs on every device of a sharding.

    Attributes:
      arrays: "image" uint8 [N, S, S, 3], and "first", "second", "label" int32 [P]. They
        are handed to compiled functions as arguments: a constant would be copied.
    """

    def __init__(
        self, store: ImageStore, sampler: Sampler, sharding: jax.sharding.Sharding
    ):
        """Copy the pixels to the devices of a sharding that is replicated on all processes."""
        images = store.images[np.arange(len(store))]
        self.arrays = {
            name: jax.make_array_from_process_local_data(sharding, x)
            for name, x in {"image": images, **sampler.table.columns}.items()
        }
        self._sampler = sampler

    def batches(
        self, arrays: dict[str, jax.Array], first_step: jax.Array, count: int
    ) -> dict[str, jax.Array]:
        """The batches of `count` steps without pixels; call it inside `jax.jit`.

        From this object's arrays "index" int32 [count, B, V] and "label" int32 [count, B].
        """
        per_epoch = self._sampler.steps_per_epoch
        first_epoch = first_step // per_epoch
        # As many epochs as that many steps can touch: an order is sorted once, not once a step.
        epochs = (count + 2 * per_epoch - 2) // per_epoch
        orders = jax.vmap(lambda e: self._sampler.order(e, jnp))(
            first_epoch + jnp.arange(epochs)
        )

        def rows(step):
            order = orders[step // per_epoch - first_epoch]
            return self._sampler.rows(arrays, step, order, jnp)

        return jax.vmap(rows)(first_step + jnp.arange(count))

    def read(
        self, arrays: dict[str, jax.Array], batch: dict[str, jax.Array]
    ) -> dict[str, jax.Array]:
        """Add the pixels to the batch of one step: "image" uint8 [B, V, S, S, 3]."""
        return {"image": arrays["image"][batch["index"]], **batch}


def place(
    asked: Literal["auto", "device", "stream"], store: ImageStore
) -> tuple[Literal["device", "stream"], str]:
    """Decide where the pixels of a run are kept, and give the reason in words.

    "auto" chooses the device if it is an accelerator and the pixels take at most a quarter of
    its free memory. UserError for an unknown placement, and for "device" if the pixels do not
    fit.
    """
    if asked not in PLACEMENTS:
        raise UserError(
            f"config.data.placement is {asked!r}: use one of {', '.join(PLACEMENTS)}."
        )
    if store.coded:
        if asked == "device":
            raise UserError(
                f"config.data.placement=device, but {store.name} holds JPEG files, which the "
                "host decodes: use config.data.placement=stream."
            )
        return "stream", "JPEG files, which the host decodes"
    size = float(np.prod(store.images.shape, dtype=np.float64))
    if (free := _free_memory()) is None:
        words = f"{size / 1e9:.2f} GB; this kind of device does not report its memory"
        return ("device" if asked == "device" else "stream"), words
    words = f"{size / 1e9:.2f} GB of pixels, {free / 1e9:.1f} GB of free device memory"
    if asked == "device" and size > free:
        raise UserError(
            f"config.data.placement=device, but there are {words}: use "
            "config.data.placement=stream."
        )
    if asked == "auto":
        return ("device" if size <= SHARE * free else "stream"), words
    return asked, words


def _free_memory() -> float | None:
    """Free bytes of the fullest device of all processes; None if they are unknown."""
    stats: list[dict[str, Any] | None] = [d.memory_stats() for d in jax.local_devices()]
    if not all(s and "bytes_limit" in s for s in stats):
        return None
    free = min(s["bytes_limit"] - s["bytes_in_use"] for s in stats)
    if jax.process_count() > 1:  # all of them have to choose the same place
        free = multihost_utils.process_allgather(np.float32(free)).min()
    return float(free)
