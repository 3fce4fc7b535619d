"""Counting collectives and predicting a step."""

import pytest

from benchmarks import scaling

PROGRAM = """
  %all-reduce.2 = (f32[4,256]{1,0}, bf16[8]{0}) all-reduce(%dot.2, %dot.3), to_apply=%add
  %x = f32[] all-reduce-start(%y), channel_id=1
  %x.1 = f32[] all-reduce-done(%x)
  %g = f32[16,256]{1,0} all-gather(%param.2), dimensions={0}
  %fusion = f32[16,512]{1,0} fusion(%all-gather, %param), kind=kCustom
  %use = f32[2]{0} get-tuple-element(%all-reduce.2), index=0
"""


def test_collectives_of_a_program():
    assert scaling.find_collectives(PROGRAM) == {
        "all-reduce": [4 * 256 * 4 + 8 * 2, 4],
        "all-gather": [16 * 256 * 4],
    }


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
    found = scaling.find_collectives(text)
    assert len(found["all-reduce"]) > 40
    gradients = 11.2e6 * 4 / 2
    assert sum(found["all-reduce"]) > gradients
    assert sum(found["all-gather"]) > gradients
    # Parameters and momentum, of each half.
    assert held == pytest.approx(2 * 11.7e6 * 4 / 2, rel=0.1)
