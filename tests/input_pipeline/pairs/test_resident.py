"""The device draws the batches that the stream reads."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from input_pipeline.pairs import resident
from input_pipeline.pairs.pairing import semantic_pairs
from input_pipeline.pairs.sampling import Sampler
from input_pipeline.pairs.stream import make_dataset
from sp_jax.config import PAIRINGS
from sp_jax.errors import UserError


@pytest.fixture(scope="module")
def store(make_store):
    return make_store(np.repeat(np.arange(10), 7))


SCHEDULE = (0, 0.9), (0.75, 0.1), (2, 0.5)  # from steps 0, 3 and 8 on


@pytest.mark.parametrize("pairing", [*PAIRINGS, "scheduled"])
def test_bit_identical_to_the_stream(store, pairing):
    """From any step on, in calls shorter and longer than an epoch (4 steps)."""
    table = semantic_pairs(store, rounds=2, seed=0)
    kinds = {"mixed": ("mixed", 0.4), "scheduled": ("mixed", 0.5, SCHEDULE)}
    kind = kinds.get(pairing, (pairing,))
    sampler = Sampler(table, 32, 5, *kind)
    stream = make_dataset(store, sampler)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    pixels = resident.DevicePixels(store, sampler, NamedSharding(mesh, PartitionSpec()))

    @jax.jit(static_argnums=2)
    def draw(arrays, first_step, count):
        batches = pixels.batches(arrays, first_step, count)
        return jax.vmap(lambda batch: pixels.read(arrays, batch))(batches)

    for first_step, count in [(0, 1), (3, 1), (3, 2), (6, 13)]:
        drawn = draw(pixels.arrays, first_step, count)
        for i in range(count):
            batch = stream[first_step + i]
            assert drawn.keys() == batch.keys()
            for name, want in batch.items():
                assert drawn[name].dtype == want.dtype
                assert np.array_equal(drawn[name][i], want), (name, first_step + i)


class Device:
    """A device that reports its memory."""

    def __init__(self, free):
        self.stats = {"bytes_limit": 1000 + free, "bytes_in_use": 1000}

    def memory_stats(self):
        return self.stats


def test_auto_measures_the_fullest_device(store, monkeypatch):
    size = 70 * 4 * 4 * 3

    def place(asked, *free):
        monkeypatch.setattr(jax, "local_devices", lambda: [Device(f) for f in free])
        return resident.place(asked, store)[0]

    assert place("auto", 8 * size, 4 * size) == "device"
    assert place("auto", 8 * size, 4 * size - 1) == "stream"
    assert place("device", size) == "device"  # asked for: no reserve
    assert place("stream", 100 * size) == "stream"
    with pytest.raises(UserError, match="placement=stream"):
        place("device", size - 1)
    with pytest.raises(UserError, match="auto, device, stream"):
        place("host", size)


def test_auto_streams_where_memory_is_unknown(store):
    """As on a CPU, whose pixels are in the host's memory already."""
    assert resident.place("auto", store)[0] == "stream"
    assert resident.place("device", store)[0] == "device"
