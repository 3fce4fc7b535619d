"""Counting the collectives of a step and predicting a step."""

import pytest

from benchmarks import hlo, scaling


def test_prediction_by_hand():
    flags = scaling.parse(["--step_ms=10", "--latency=20", "--network_latency=40"])
    found = {"all-reduce": [450_000_000], "all-gather": [900_000_000]}
    assert scaling.predict(found, 1, flags) == 10
    # Twice half of the bytes at 450 GB/s: 1 ms, and 20 us; the gather is half of one.
    assert scaling.predict(found, 2, flags) == pytest.approx(10 + 2 * 1.02)
    # In the host 7/8 of 2 ms; between 8 hosts 7/4 of an eighth at 50 GB/s.
    between = 7 / 4 * 450 / 8 / 50
    assert scaling.predict(found, 64, flags) == pytest.approx(
        10 + 2 * (1.75 + between + 0.04)
    )


@pytest.mark.slow
def test_the_step_of_a_recipe():
    """A ResNet-18 has twenty normalisations; each sums forward and backward."""
    flags = scaling.parse(
        ["--step_ms=1", "--batch_size=4", "--model=resnet18", "--fsdp=2"]
    )
    text, held = scaling.compile_text(flags)
    found = hlo.find_collectives(text)
    assert len(found["all-reduce"]) > 40
    gradients = 11.2e6 * 4 / 2
    assert sum(found["all-reduce"]) > gradients
    assert sum(found["all-gather"]) > gradients
    # Parameters and momentum, of each half.
    assert held == pytest.approx(2 * 11.7e6 * 4 / 2, rel=0.1)
