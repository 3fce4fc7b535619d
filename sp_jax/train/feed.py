"""How the step gets its batches: from the host, or from the memory of the device."""

import contextlib
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sp_jax.sharding import by_batch, replicated
from sp_jax.train.step import Step, TrainState, jit_step

RawBatch = dict[str, Any]  # "image", "index", "label"; see `make_step`

STEPS_PER_CALL = 50  # enough to hide the dispatch; not yet compared with others


def steps_per_call(asked: int) -> int:
    """The config's value, or for 0 the best one on this kind of device."""
    return asked or (1 if jax.default_backend() == "cpu" else STEPS_PER_CALL)


class Advance(NamedTuple):
    """What a feed returns.

    Attributes:
        metrics: float32 scalars, or [count] where several steps were made.
        features: of the last step, float32 [B, 2, D]; None without pairs.
        program: a key for each compiled program of a feed.
    """

    state: TrainState
    metrics: dict[str, jax.Array]
    features: jax.Array | None
    count: int
    program: Hashable


class PixelSource(Protocol):
    """A store in device memory; `input_pipeline.pairs.resident.DevicePixels` is one."""

    arrays: dict[str, jax.Array]

    def batches(self, arrays: RawBatch, first_step: jax.Array, count: int) -> RawBatch:
        """Indices and labels of some steps, stacked."""

    def read(self, arrays: RawBatch, batch: RawBatch) -> RawBatch:
        """The batch of one step, with pixels."""


class StreamedFeed:
    """Batches that a host iterator makes, each copied while the device computes.

    They may have several shapes: the step is compiled for each.
    """

    def __init__(
        self, step: Step, batches: Callable[..., Iterator[RawBatch]], mesh: Mesh
    ):
        """Jit the step; `batches(first, end)` iterates over this process's batches.

        They are those of the steps first .. end - 1; without `end`, up to the last of the run.
        """
        self._batches, self._mesh = batches, mesh
        self._stream: Iterator[RawBatch] = iter(())
        self._next: RawBatch | None = None
        self._step = jit_step(step, mesh)

    def open(self, first_step: int) -> None:
        """Start reading at a step."""
        self._stream = self._batches(first_step)
        self._next = self._read()

    def _read(self) -> RawBatch | None:
        batch = next(self._stream, None)
        return None if batch is None else to_device(batch, self._mesh)

    def advance(self, state: TrainState, most: int) -> Advance:
        """Make one step; `most` is at least 1."""
        shapes = tuple(x.shape for x in jax.tree.leaves(self._next))
        with jax.transfer_guard("disallow"):
            state, metrics, features = self._step(state, self._next)
        self._next = self._read()
        return Advance(state, metrics, features, 1, shapes)

    def lower(self, state: TrainState, most: int) -> jax.stages.Lowered:
        """The program of `advance`, to be compiled and inspected."""
        return self._step.lower(state, self._next)

    def first_epoch(self, steps: int) -> Iterator[RawBatch]:
        """The batches of the first steps, on the devices."""
        # An epoch can be longer than the run.
        with contextlib.closing(self._batches(0, steps)) as stream:
            for batch in stream:
                yield to_device(batch, self._mesh)

    def close(self) -> None:
        """Stop reading ahead."""
        if hasattr(self._stream, "close"):
            self._stream.close()


class ResidentFeed:
    """Batches that the device draws by itself, for several steps in one dispatch.

    The host sends nothing: the number of the step is in the state.
    """

    def __init__(
        self, step: Step, source: PixelSource, mesh: Mesh, steps_per_call: int
    ):
        """Jit the step, alone and `steps_per_call` times in a scan.

        On a CPU a scan over steps is about 20 times slower than a loop in Python: let
        `steps_per_call` be 1 there.
        """
        self._source, self._mesh, self._most = source, mesh, steps_per_call
        rows, whole = by_batch(mesh), replicated(mesh)
        # The arrays are arguments throughout: as constants they would be copied.

        def read(arrays, batch):
            # Each device gathers its own rows of the batch.
            return jax.lax.with_sharding_constraint(source.read(arrays, batch), rows)

        def one(arrays, number):
            batches = source.batches(arrays, number, 1)
            return read(arrays, jax.tree.map(lambda x: x[0], batches))

        def several(state, arrays, count):
            if count == 1:
                return step(state, one(arrays, state.step))

            def body(carry, batch):
                state, _ = carry
                state, metrics, features = step(state, read(arrays, batch))
                return (state, features), metrics

            *_, shape = jax.eval_shape(step, state, one(arrays, state.step))
            # Without features it is None.
            empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shape)
            batches = source.batches(arrays, state.step, count)
            (state, features), metrics = jax.lax.scan(body, (state, empty), batches)
            return state, metrics, features

        self._several = jax.jit(
            several,
            static_argnums=2,
            donate_argnums=0,
            in_shardings=(None, whole),
            out_shardings=(None, whole, rows),
        )
        self._batch = jax.jit(one, in_shardings=(whole, whole), out_shardings=rows)

    def open(self, first_step: int) -> None:
        """Nothing to open: the step's number is in the state."""

    def advance(self, state: TrainState, most: int) -> Advance:
        """Make `steps_per_call` steps, or one where fewer than these are wanted."""
        count = self._count(most)
        with jax.transfer_guard("disallow"):
            out = self._several(state, self._source.arrays, count)
        return Advance(*out, count, count)

    def _count(self, most: int) -> int:
        return self._most if most >= self._most else 1

    def lower(self, state: TrainState, most: int) -> jax.stages.Lowered:
        """The program of `advance`, to be compiled and inspected."""
        return self._several.lower(state, self._source.arrays, self._count(most))

    def first_epoch(self, steps: int) -> Iterator[RawBatch]:
        """The batches of the first steps, on the devices."""
        for step in range(steps):
            number = jax.device_put(np.int32(step), replicated(self._mesh))
            yield self._batch(self._source.arrays, number)

    def close(self) -> None:
        """Nothing to close."""


def to_device(batch: RawBatch, mesh: Mesh) -> RawBatch:
    """Assemble the global batch from each process's share; returns before the copy."""
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(by_batch(mesh), x), batch
    )
