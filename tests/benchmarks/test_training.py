"""What the benchmarks share: a step that is ready to be timed."""

import pytest

from benchmarks import training
from sp_jax.sharding import make_mesh
from tests.train import tiny


@pytest.mark.slow
def test_step_is_lowered_as_it_is_trained():
    """Without images or parameters: the same program as that of a prepared training."""
    config = tiny.get_config()
    images = training.open_images(config)
    mesh = make_mesh()
    lowered = training.lower_step(config, mesh, len(images))
    with training.prepare(config, images, mesh, "stream", 1) as made:
        trained = made.feed.lower(made.state, 1)
    found, wanted = lowered.cost_analysis(), trained.cost_analysis()
    assert found["flops"] == wanted["flops"] > 1e6
    assert training.count_flops(config, len(images)) > 1e6
