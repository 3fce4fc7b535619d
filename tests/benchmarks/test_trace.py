"""The report of a trace, on a trace of this machine and on one as an NVIDIA GPU writes it."""

import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from benchmarks import trace, training, xplane
from configs import swav_resnet50
from sp_jax.errors import UserError
from sp_jax.sharding import make_mesh
from tests.methods.build import shallow_resnet

BODY = "jit(step)/while/body"
STEPS, PERIOD = 4, 1000  # microseconds


def field(number, value):
    """A field of a protocol buffer."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value):
    digits = []
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def instruction(number, name, opcode, op_name="", reads=(), calls=(), target=""):
    return (
        field(1, name)
        + field(2, opcode)
        + (field(7, field(2, op_name)) if op_name else b"")
        + field(28, target)
        + field(35, number)
        + field(36, b"".join(map(varint, reads)))
        + field(38, b"".join(map(varint, calls)))
    )


def program():
    """An HloProto: a step whose copy and whose matrix product have lost their names."""
    forward = f"{BODY}/jvp(loss)/Network/backbone/conv1/conv_general_dilated"
    backward = f"{BODY}/transpose(jvp(loss))/Network/backbone/conv1/mul"
    body = [
        instruction(1, "param.1", "parameter", "state.params['x']"),
        instruction(2, "multiply.1", "multiply", f"{BODY}/augment/mul", [1]),
        instruction(3, "reduce.1", "reduce", f"{BODY}/augment/reduce_sum", [2]),
    ]
    entry = [
        instruction(10, "images", "parameter", "batch['image']"),
        instruction(11, "fusion.1", "fusion", reads=[10], calls=[100]),
        instruction(
            12, "loop_add_fusion", "fusion", f"{BODY}/augment/add", [11], [102]
        ),
        instruction(
            13,
            "cudnn-conv.1",
            "custom-call",
            forward,
            [12],
            target="__cudnn$convForward",
        ),
        instruction(14, "sub.1", "fusion", f"{BODY}/jvp(loss)/sub", [13], [102]),
        instruction(15, "loop_mul_fusion.7", "fusion", backward, [14, 13], [102]),
        instruction(16, "copy.2", "copy", reads=[15, 12]),
        instruction(
            17, "gemm.3", "custom-call", reads=[12, 16], target="__cublas$gemm"
        ),
        instruction(18, "lars.1", "fusion", f"{BODY}/optimizer/add", [17], [102]),
        instruction(19, "ema.1", "fusion", f"{BODY}/update/add", [18], [102]),
    ]
    sums = [instruction(30, "param.2", "parameter"), instruction(31, "add.9", "add")]
    computations = {100: body, 102: sums, 101: entry}
    module = field(1, "jit_steps") + b"".join(
        field(3, b"".join(field(2, x) for x in instructions) + field(5, number))
        for number, instructions in computations.items()
    )
    return field(1, module)


# Kernel, start and length in microseconds, instruction.
KERNELS = [
    ("input_reduce_fusion_1", 0, 100, "fusion.1"),
    ("loop_add_fusion", 100, 50, "loop_add_fusion"),
    ("sm90_xmma_fprop_implicit_gemm_bf16", 150, 300, "cudnn-conv.1"),
    ("sub_1", 450, 10, "sub.1"),
    # In a command buffer the kernel's name is all that is left of the instruction.
    ("loop_mul_fusion_7", 465, 80, "command_buffer"),
    ("sm90_xmma_dgrad_implicit_gemm_bf16", 545, 20, "command_buffer"),
    ("copy_2", 565, 20, "copy.2"),
    ("nvjet_hsh_128x64", 585, 80, "gemm.3"),
    ("lars_1", 665, 5, "lars.1"),
    ("lars_1", 672, 5, "lars.1"),
    ("ema_1", 680, 20, "ema.1"),
]


def gpu_trace(hlo=True, name="/device:GPU:0"):
    """A trace as the profiler's CUPTI tracer writes it (cupti_collector.cc of XLA)."""
    names = {key: i + 1 for i, key in enumerate(dict.fromkeys(x[0] for x in KERNELS))}
    names |= {"MemcpyH2D": 50, "train": 51, "MemoryAlloc": 52}
    stats = dict(hlo_op=1, hlo_module=2, program_id=3, kernel_details=4, step_num=5)
    stats |= {"memcpy_details": 6, "memalloc_details": 7, "name": 8, "Hlo Proto": 9}

    def event(name, start, length, **values):
        text = " ".join(
            f"stats {{ metadata_id: {stats[key]} "
            + (f"int64_value: {x}" if isinstance(x, int) else f'str_value: "{x}"')
            + " }"
            for key, x in values.items()
        )
        return (
            f"events {{ metadata_id: {names[name]} offset_ps: {start * 10**6} "
            f"duration_ps: {length * 10**6} {text} }}"
        )

    kernels = [
        event(kernel, i * PERIOD + start, length, hlo_op=op, hlo_module="jit_steps",
              program_id=7, kernel_details="regs:32")
        for i in range(STEPS)
        for kernel, start, length, op in KERNELS
    ]  # fmt: skip
    copies = [event("MemcpyH2D", i * PERIOD + 690, 30, memcpy_details="kind_src:pinned")
              for i in range(STEPS)]  # fmt: skip
    alloc = [event("MemoryAlloc", 700, 200, memalloc_details="kind:device")]
    metadata = " ".join(
        f'event_metadata {{ key: {i} value {{ id: {i} name: "{x}" }} }}'
        for x, i in names.items()
    ) + " ".join(
        f'stat_metadata {{ key: {i} value {{ id: {i} name: "{x}" }} }}'
        for x, i in stats.items()
    )
    marker = event("train", 5, 30, step_num=20)
    text = f"""
        planes {{ name: "{name}" {metadata}
          lines {{ id: 13 name: "Stream #13(Kernel)" {" ".join(kernels)} }}
          lines {{ id: 14 name: "Stream #14(MemcpyH2D)" {" ".join(copies + alloc)} }}
          lines {{ id: 99 name: "XLA Modules" {event("train", 0, 4 * PERIOD)} }}
        }}
        planes {{ name: "/host:CPU" {metadata}
          lines {{ id: 1 name: "python" {marker} }}
        }}"""
    data = jax.profiler.ProfileData.text_proto_to_serialized_xspace(text)
    if hlo:
        stat = field(5, field(1, 9) + field(6, program()))
        entry = field(1, 7) + field(2, field(1, 7) + field(2, "jit_steps(7)") + stat)
        data += field(1, field(2, "/host:metadata") + field(4, entry))
    return data


def write(folder, data):
    path = folder / "plugins" / "profile" / "2026_01_02" / "host.xplane.pb"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return path


def summary_of(path, top=20):
    return trace.summarise(xplane.read(xplane.find(path)), top)


@pytest.mark.parametrize(
    ("op_name", "region"),
    [
        ("jit(step)/while/body/augment/jit(_uniform)/mul", "augment"),
        ("jit(step)/jvp(loss)/Network/backbone/conv1/add", "forward"),
        ("jit(step)/jvp(Network)/projector/dense0/dot_general", "forward"),
        ("jit(step)/loss/PIRLNetwork/image_head/dense0/dot_general", "forward"),
        ("jit(step)/jvp(loss)/reduce_sum", "loss"),
        ("jit(step)/jvp()/reduce_sum", "loss"),
        ("jit(step)/loss/exp", "loss"),
        ("jit(step)/transpose(jvp(loss))/Network/backbone/conv1/add", "backward"),
        ("jit(step)/transpose(jvp())/transpose", "backward"),
        ("jit(step)/optimizer/transpose", "optimizer"),
        ("jit(step)/update/mul", "update"),
        ("jit(step)/transpose", "other"),
        ("", "other"),
    ],
)
def test_the_region_is_in_the_name(op_name, region):
    assert trace.region(op_name) == region


def test_a_trace_of_a_gpu(tmp_path):
    write(tmp_path, gpu_trace())
    summary = summary_of(tmp_path)
    assert (summary["device"], summary["module"]) == ("GPU:0", "jit_steps")
    assert (summary["steps"], summary["markers"]) == (STEPS, [20])
    assert summary["step_ms"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    regions = {name: row["ms"] * 1e3 for name, row in summary["regions"].items()}
    assert regions == pytest.approx(
        {
            "augment": 150,
            "forward": 300,
            "loss": 10,
            "backward": 200,
            "optimizer": 10,
            "update": 20,
            "other": 30,
        }
    )
    assert summary["inferred_share"] == pytest.approx(20 / 720)
    kinds = {name: row["ms"] * 1e3 for name, row in summary["kinds"].items()}
    assert kinds == pytest.approx(
        {
            "convolution": 320,
            "fusion": 170,
            "reduce": 100,
            "matmul": 80,
            "copy": 20,
            "memcpy H2D": 30,
        }
    )
    # Each step: 5 + 2 + 3 us between kernels, 300 us before the next one.
    window = 3 * PERIOD + 700
    idle = summary["idle"]
    assert idle["share"] == pytest.approx((4 * 10 + 3 * 300) / window)
    assert idle["short_share"] == pytest.approx(4 * 10 / window)
    assert idle["gaps"][0]["instruction"] == "fusion.1"
    assert idle["gaps"][0]["mean_us"] == pytest.approx(300)
    top = summary["ops"][0]
    assert (top["instruction"], top["count"], top["mean_us"]) == (
        "cudnn-conv.1",
        1,
        300,
    )
    lars = next(x for x in summary["ops"] if x["instruction"] == "lars.1")
    assert (lars["count"], lars["ms"]) == (2, pytest.approx(0.01))


def test_a_gpu_trace_without_programs_goes_by_the_kernels(tmp_path):
    write(tmp_path, gpu_trace(hlo=False))
    summary = summary_of(tmp_path)
    assert summary["steps"] == STEPS
    assert list(summary["regions"]) == ["other"]
    kinds = {name: row["ms"] * 1e3 for name, row in summary["kinds"].items()}
    assert kinds["convolution"] == pytest.approx(320)
    assert kinds["matmul"] == pytest.approx(80)
    assert kinds["reduce"] == pytest.approx(100)


def test_a_trace_of_this_machine(tmp_path):
    @jax.jit
    def train(weights, images):
        with jax.named_scope("augment"):
            images = jnp.sin(images) * 2

        @jax.named_scope("loss")
        def loss(weights):
            with jax.named_scope("Network/backbone"):
                features = jnp.tanh(images @ weights)
            return jnp.mean(jnp.sort(features, axis=0) ** 2)

        grads = jax.grad(loss)(weights)
        with jax.named_scope("optimizer"):
            return weights - 0.1 * grads

    device = jax.devices()[0]
    weights = jax.device_put(jnp.eye(256), device)
    images = jax.device_put(jnp.ones((512, 256)), device)
    train(weights, images).block_until_ready()
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with jax.profiler.trace(tmp_path, profiler_options=options):
        for number in range(5):
            with jax.profiler.StepTraceAnnotation("train", step_num=number):
                weights = train(weights, images)
            weights.block_until_ready()
    summary = summary_of(tmp_path)
    assert (summary["device"], summary["module"]) == ("CPU:0", "jit_train")
    assert (summary["steps"], summary["markers"]) == (5, [0, 1, 2, 3, 4])
    assert 0 < summary["idle"]["share"] < 1
    assert {"augment", "forward", "loss", "backward", "optimizer"} <= set(
        summary["regions"]
    )
    assert {"matmul", "sort"} <= set(summary["kinds"])
    text = trace.report(summary)
    assert "forward" in text and "5 steps" in text


def test_the_command(tmp_path):
    write(tmp_path, gpu_trace())
    out = tmp_path / "numbers.json"
    command = [sys.executable, "-m", "benchmarks.trace"]
    done = subprocess.run(
        [*command, str(tmp_path), "--top=2", f"--json={out}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "1.000 ms median" in done.stdout
    numbers = json.loads(out.read_text())
    assert len(numbers["ops"]) == 2
    done = subprocess.run([*command, str(out.parent / "no")], capture_output=True)
    assert done.returncode == 2
    assert b"does not exist" in done.stderr and b"Traceback" not in done.stderr


def test_a_training_step_has_every_region():
    with shallow_resnet():
        names = names_of_a_step()
    assert {trace.region(name) for name in names} == {*trace.REGIONS, "other"}


def names_of_a_step():
    """Origins of all operations of a step of SwAV, from before it is compiled."""
    config = swav_resnet50.get_config("quick")
    config.batch_size = 8
    mesh = make_mesh(jax.devices()[:1])
    text = training.lower_step(config, mesh).as_text(debug_info=True)
    return set(re.findall(r'loc\("(jit\([^"]*)"', text))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "no trace"),
        (b"\xff" * 50, "damaged"),
        (gpu_trace()[:-9], "damaged"),
        (b"", "no operation"),
        (gpu_trace(name="/device:TPU:0"), "no operation"),
    ],
)
def test_what_is_no_trace_is_one_sentence(tmp_path, data, message):
    if data is not None:
        write(tmp_path, data)
    with pytest.raises(UserError, match=message):
        summary_of(tmp_path)
