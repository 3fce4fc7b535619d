"""What the benchmarks share: a step that is ready to be timed."""

import jax

from benchmarks import training
from sp_jax.train.mesh import make_mesh
from tests.train import tiny


def test_flops_are_those_of_one_device():
    """Counted for a CPU, whatever the devices are that the step was made for."""
    config = tiny.get_config()
    images = training.open_images(config)
    flops = []
    for devices in (jax.devices(), jax.devices()[3:4]):
        mesh = make_mesh(devices)
        with training.prepare(config, images, mesh, "stream", 1) as made:
            flops.append(training.count_flops(made, config))
    assert flops[0] == flops[1]
    assert flops[0] > 1e6
