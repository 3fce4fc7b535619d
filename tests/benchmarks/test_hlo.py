"""Reading a compiled program."""

import pytest

from benchmarks import hlo

COLLECTIVES = """
  %all-reduce.2 = (f32[4,256]{1,0}, bf16[8]{0}) all-reduce(%dot.2, %dot.3), to_apply=%add
  %x = f32[] all-reduce-start(%y), channel_id=1
  %x.1 = f32[] all-reduce-done(%x)
  %g = f32[16,256]{1,0} all-gather(%param.2), dimensions={0}
  %fusion = f32[16,512]{1,0} fusion(%all-gather, %param), kind=kCustom
  %use = f32[2]{0} get-tuple-element(%all-reduce.2), index=0
"""

KERNELS = """HloModule jit_step

%inside (p.0: bf16[8,4]) -> bf16[8,4] {
  %p.0 = bf16[8,4]{1,0} parameter(0)
  ROOT %sqrt = bf16[8,4]{1,0} sqrt(%p.0)
}

ENTRY %main.1 (x: bf16[8,4], w: bf16[4,2]) -> f32[8,2] {
  %x = bf16[8,4]{1,0} parameter(0)
  %w = bf16[4,2]{1,0} parameter(1)
  %root = bf16[8,4]{1,0} fusion(%x), kind=kLoop, calls=%inside, metadata={op_name="f/sqrt"}
  %dot = (f32[8,2]{1,0}, s8[4096]{0}) custom-call(%root, %w), custom_call_target="__cublas$gemm"
  %y = f32[8,2]{1,0} get-tuple-element(%dot), index=0
  ROOT %out = f32[8,2]{1,0} copy(%y)
}
"""


def test_collectives_of_a_program():
    assert hlo.find_collectives(COLLECTIVES) == {
        "all-reduce": [4 * 256 * 4 + 8 * 2, 4],
        "all-gather": [16 * 256 * 4],
    }


def test_kernels_of_a_program():
    """A fusion is one kernel; a workspace is no result; names are no kernels."""
    assert list(hlo.find_kernels(KERNELS)) == [
        ("root", 64 + 64, "f/sqrt"),
        ("dot", 64 + 16 + 64, ""),
        ("out", 64 + 64, ""),
    ]


def test_programs_that_cannot_be_counted():
    loop = KERNELS.replace("fusion(%x), kind=kLoop, calls", "while(%x), body")
    with pytest.raises(ValueError, match="loop, root,"):
        list(hlo.find_kernels(loop))
    with pytest.raises(ValueError, match="no ENTRY"):
        list(hlo.find_kernels(COLLECTIVES))
