"""The host's batches and the device's give the same run."""

import jax
import numpy as np
import pytest

from input_pipeline.pairs.pairing import semantic_pairs
from input_pipeline.pairs.resident import DevicePixels
from input_pipeline.pairs.sampling import Sampler
from input_pipeline.pairs.stream import iterate, make_dataset
from input_pipeline.stores import open_store
from sp_jax.methods import RunSize
from sp_jax.recipe import make_recipe
from sp_jax.sharding import make_mesh, replicated
from sp_jax.train.feed import ResidentFeed, StreamedFeed
from sp_jax.train.step import TrainState, init_state, make_step
from tests.train import tiny

STEPS = 5


@pytest.fixture(scope="module")
def train():
    """A function of a feed's kind to the metrics of each step and the last parameters."""
    store = open_store("emoji", "pretrain")
    sampler = Sampler(semantic_pairs(store, seed=0), 16, seed=0)
    # SupCon learns from all that a batch holds: pixels and labels.
    config = tiny.get_config().to_dict() | {"dtype": "float32", "method": "supcon"}
    run = RunSize(total_steps=100, steps_per_epoch=10, batch_size=16, num_images=3620)
    recipe = make_recipe(config, run)
    mesh = make_mesh(jax.devices()[:2])
    step = make_step(recipe, mesh)

    def train(steps_per_call):
        state = init_state(recipe, 0, mesh)
        if steps_per_call:
            pixels = DevicePixels(store, sampler, replicated(mesh))
            feed = ResidentFeed(step, pixels, mesh, steps_per_call)
        else:
            dataset = make_dataset(store, sampler)
            feed = StreamedFeed(
                step, lambda first, end=STEPS: iterate(dataset, first, end), mesh
            )
        feed.open(0)
        losses, counts = [], []
        while sum(counts) < STEPS:
            out = feed.advance(state, STEPS - sum(counts))
            state = out.state
            counts.append(out.count)
            losses += np.atleast_1d(out.metrics["loss"]).tolist()
        feed.close()
        assert int(state.step) == STEPS
        return counts, losses, jax.device_get((state.params, out.features))

    return train


@pytest.mark.slow
def test_resident_equals_streamed(train):
    _, losses, arrays = train(0)
    counts, same_losses, same = train(1)
    assert counts == [1] * STEPS
    assert losses == same_losses
    assert all(map(np.array_equal, jax.tree.leaves(arrays), jax.tree.leaves(same)))
    # A scan is another program, which may round otherwise.
    counts, close_losses, close = train(3)
    assert counts == [3, 1, 1]
    assert close_losses == pytest.approx(losses, rel=1e-4)
    for a, b in zip(*map(jax.tree.leaves, (arrays, close)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-3)


def test_the_first_epoch_may_be_longer_than_the_run():
    dataset = [{"index": np.full((2, 1), step)} for step in range(10)]
    mesh = make_mesh(jax.devices()[:2])
    feed = StreamedFeed(
        abs, lambda first, end=STEPS: (x for x in dataset[first:end]), mesh
    )
    rows = [int(batch["index"][0, 0]) for batch in feed.first_epoch(10)]
    assert rows == [*range(10)]


def test_a_method_without_features():
    class Source:
        arrays = {}

        def batches(self, arrays, first_step, count):
            return {"index": jax.numpy.zeros((count, 8, 2), "int32")}

        def read(self, arrays, batch):
            return batch

    def step(state, batch):
        return state.replace(step=state.step + 1), {"loss": batch["index"].sum()}, None

    mesh = make_mesh(jax.devices()[:1])
    feed = ResidentFeed(step, Source(), mesh, 2)
    number = jax.device_put(np.int32(0), replicated(mesh))
    state = TrainState(step=number, params=(), method_state=(), opt_state=(), key=())
    out = feed.advance(state, 2)
    assert int(out.state.step) == out.count == 2 and out.features is None
