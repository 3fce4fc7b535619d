"""One device and eight give the same run."""

import jax
import numpy as np
import pytest

from input_pipeline.pairs.pairing import semantic_pairs
from input_pipeline.pairs.sampling import Sampler
from input_pipeline.pairs.stream import make_dataset
from input_pipeline.stores import open_store
from sp_jax.methods import RunSize
from sp_jax.recipe import make_recipe
from sp_jax.sharding import by_batch, make_mesh
from sp_jax.train.health import make_health
from sp_jax.train.step import init_state, jit_step, make_step
from tests.train import tiny


@pytest.fixture(scope="module")
def batches():
    store = open_store("emoji", "pretrain")
    table = semantic_pairs(store, seed=0)
    dataset = make_dataset(store, Sampler(table, 16, seed=0))
    return [dataset[step] for step in range(5)]


def losses(batches, devices):
    """The loss curve in float32, and the parameters at its end."""
    config = tiny.get_config().to_dict() | {"dtype": "float32"}
    run = RunSize(total_steps=100, steps_per_epoch=10, batch_size=16, num_images=3620)
    recipe = make_recipe(config, run)
    mesh = make_mesh(jax.devices()[:devices])
    state = init_state(recipe, 0, mesh)
    step = jit_step(make_step(recipe, mesh), mesh)
    health = make_health(mesh)
    curve = []
    for batch in batches:
        state, metrics, features = step(state, jax.device_put(batch, by_batch(mesh)))
        metrics |= health(features)
        curve.append({name: float(value) for name, value in metrics.items()})
    return curve, jax.device_get(state.params)


def test_the_number_of_devices_does_not_matter(batches):
    assert len(jax.devices()) == 8
    one, params_one = losses(batches, 1)
    eight, params_eight = losses(batches, 8)
    for a, b in zip(one, eight, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name] == pytest.approx(b[name], rel=2e-3, abs=1e-4), name
    # Normalised over the global batch: over its own, a device would have 4 rows, not 32.
    assert one[0]["loss"] == pytest.approx(eight[0]["loss"], rel=1e-5)
    largest = jax.tree.map(lambda x, y: np.abs(x - y).max(), params_one, params_eight)
    assert max(jax.tree.leaves(largest)) < 1e-3
    assert all(line["effective_rank"] > 1 for line in one)
