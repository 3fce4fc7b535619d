"""Read a profiler trace: what ran on a device, and the compiler's data on it.

A trace is one file, `HOST.xplane.pb`, of planes, lines and events. JAX's `ProfileData` gives
the events, but not the compiled programs, which lie in the metadata of the plane
"/host:metadata": `_fields` reads those few fields itself, as the generated classes would
need TensorFlow.

An operation on a GPU is an event of a line "Stream #..." of a plane "/device:GPU:N"; its
name is the kernel's. On a CPU it is an event with a stat `hlo_op` on any thread of the plane
"/host:CPU"; if it goes on after it has returned, an event "end: ..." says when it was done.
"""

import collections
import os
import pathlib
import statistics
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from sp_jax.errors import UserError

# Instructions that only run others: those are in the trace themselves.
CONTAINERS = ("while", "conditional", "call")


class Instruction(NamedTuple):
    """An instruction of a compiled program (HLO).

    Attributes:
        opcode: such as "fusion" or "convolution".
        op_name: where it comes from: "jit(step)/augment/mul"; "" if unknown.
        target: the library function of a custom call, such as "__cudnn$convForward".
        body: opcodes of what a fusion has fused; empty for others.
    """

    opcode: str
    op_name: str
    target: str = ""
    body: frozenset[str] = frozenset()


Module = dict[str, Instruction]


class Op(NamedTuple):
    """One operation that ran on a device. Times are nanoseconds.

    Attributes:
        start: when it began.
        end: when it was done.
        busy: what it took without the operations that ran inside it.
        name: the kernel's on a GPU, the instruction's on a CPU.
        hlo_op: the instruction's name; "" if unknown.
        module: the program's name; "" for what belongs to none, such as a transfer.
        program: the program's number, as one name may be that of several; else -1.
        line: stream or thread.
        op_name: where it comes from, as in `Instruction`; "" if unknown.
        instruction: None if the trace has no program that explains it.
    """

    start: float
    end: float
    busy: float
    name: str
    hlo_op: str
    module: str
    program: int
    line: str
    op_name: str
    instruction: Instruction | None


class Trace(NamedTuple):
    """The content of a file.

    Attributes:
        devices: the operations of each device in the order of their starts; "CPU:0",
            "GPU:0" and so on.
        steps: numbers of the step markers of the host.
    """

    devices: dict[str, list[Op]]
    steps: list[int]


def find(path: str | os.PathLike) -> pathlib.Path:
    """The newest trace below a folder, of its first process; or the file itself.

    Raises:
        UserError: there is none.
    """
    path = pathlib.Path(path).expanduser()
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{path} does not exist: give the folder of a run.")
    files = sorted(path.rglob("*.xplane.pb"))
    if not files:
        raise UserError(
            f"{path} holds no trace (*.xplane.pb): train with --config.profile.steps=5."
        )
    # Each trace is a folder that is named after its time, with a file for each process.
    newest = max(file.parent.name for file in files)
    return next(file for file in files if file.parent.name == newest)


def read(path: pathlib.Path) -> Trace:
    """Read a trace.

    Raises:
        UserError: the file is no trace, or no operation of a device is in it.
    """
    data = path.read_bytes()
    try:
        planes = list(jax.profiler.ProfileData.from_serialized_xspace(data).planes)
        modules = _modules(memoryview(data))
    except (RuntimeError, ValueError, IndexError, KeyError) as error:
        raise UserError(
            f"{path} is damaged or not a profiler trace ({error})."
        ) from error
    devices = {}
    for plane in planes:
        if plane.name.startswith("/device:GPU:"):
            ops = list(_gpu_ops(plane, modules))
            devices[plane.name.removeprefix("/device:")] = ops
    host = [plane for plane in planes if plane.name == "/host:CPU"]
    if not any(devices.values()):
        devices = collections.defaultdict(list)
        for plane in host:
            for number, op in _cpu_ops(plane, modules):
                devices[f"CPU:{number}"].append(op)
    devices = {name: sorted(ops) for name, ops in devices.items() if ops}
    if not devices:
        raise UserError(
            f"{path} holds no operation of a GPU or a CPU: no step was traced, or the "
            "profiler did not find CUDA's CUPTI library."
        )
    return Trace(devices, _markers(host))


def _markers(planes: list) -> list[int]:
    """Numbers of the steps that `StepTraceAnnotation` marked."""
    events = (e for p in planes for line in p.lines for e in line.events)
    stats = (dict(e.stats) for e in events if e.name == "train")
    return sorted(int(x["step_num"]) for x in stats if "step_num" in x)


def _gpu_ops(plane, modules: dict[Any, Module]) -> Iterator[Op]:
    # Other lines ("XLA Ops", "Steps", "_counters_") repeat or count what the streams do.
    for line in plane.lines:
        if not line.name.startswith("Stream #"):
            continue
        for event in line.events:
            stats = dict(event.stats)
            if any(key in stats for key in _NO_WORK):
                continue
            yield _op(event, event.duration_ns, event.end_ns, stats, line, modules)


_NO_WORK = ("memalloc_details", "MemFree_details", "MemoryResidency_details")


def _cpu_ops(plane, modules: dict[Any, Module]) -> Iterator[tuple[int, Op]]:
    events, ends = [], {}
    for line in plane.lines:
        found = []
        for event in line.events:
            # Asking for the stats is slow, and most events are of the thread pool.
            if event.name.startswith("Threadpool"):
                continue
            stats = dict(event.stats)
            if event.name.startswith("end: "):
                ends[stats.get("_c")] = event.start_ns
            elif "hlo_op" in stats:
                found.append((event, stats, line))
        events += zip(found, _self_times([x[0] for x in found]), strict=True)
    for (event, stats, line), busy in events:
        end = event.end_ns
        op = _op(event, busy, end, stats, line, modules)
        container = op.instruction and op.instruction.opcode in CONTAINERS
        if not container and (done := ends.get(stats.get("_p"), end)) > end:
            op = op._replace(end=done, busy=busy + done - end)
        yield stats.get("device_ordinal", 0), op


def _self_times(events: list) -> list[float]:
    """Durations without the events inside, of the events of one thread."""
    times = [event.duration_ns for event in events]
    around: list[int] = []
    for i in sorted(
        range(len(events)), key=lambda i: (events[i].start_ns, -events[i].end_ns)
    ):
        while around and events[around[-1]].end_ns < events[i].end_ns:
            around.pop()
        if around:
            times[around[-1]] -= events[i].duration_ns
        around.append(i)
    return times


def _op(event, busy: float, end: float, stats: dict, line, modules) -> Op:
    hlo_op, name = str(stats.get("hlo_op", "")), str(stats.get("hlo_module", ""))
    program = int(stats.get("program_id", -1))
    module = modules.get(program) or modules.get(name, {})
    instruction = module.get(hlo_op)
    if instruction is None or instruction.opcode in CONTAINERS:
        # In a command buffer only the kernel's name, made from an instruction's, is left.
        instruction = module.get(_kernel_name(event.name), instruction)
    op_name = instruction.op_name if instruction else ""
    # What an NVIDIA GPU's event says itself; `name` lacks the prefix that all share.
    op_name = op_name or str(stats.get("op_name") or stats.get("name") or "")
    return Op(
        start=event.start_ns,
        end=end,
        busy=busy,
        name=event.name,
        hlo_op=hlo_op,
        module=name,
        program=program,
        line=line.name,
        op_name=op_name,
        instruction=instruction,
    )


def same_name(kernel: str, instruction: str) -> bool:
    """Whether a kernel is named after an instruction."""
    return _kernel_name(kernel) == _kernel_name(instruction)


def _kernel_name(name: str) -> str:
    """A kernel has the name of its instruction, with "_" for what C does not allow."""
    return name.replace(".", "_").replace("-", "_")


def _modules(space: memoryview) -> dict[Any, Module]:
    """The compiled programs, by number and by name; instructions by both spellings.

    Field numbers: xplane.proto and hlo.proto of XLA.
    """
    modules: dict[Any, Module] = {}
    for plane in _all(space, 1):
        fields = _grouped(plane)
        if bytes(fields[2][0]) != b"/host:metadata":
            continue
        for entry in fields.get(4, []):
            metadata = _grouped(_grouped(entry)[2][0])
            for stat in metadata.get(5, []):
                # The only stat that holds bytes is "Hlo Proto".
                for program in _all(stat, 6):
                    for proto in _all(program, 1):
                        name, module = _module(proto)
                        modules[int(metadata[1][0])] = modules[name] = module
    return modules


def _module(proto: memoryview) -> tuple[str, Module]:
    fields = _grouped(proto)
    module: Module = {}
    computations: dict[int, list[Instruction]] = {}
    for computation in map(_grouped, fields.get(3, [])):  # callees before callers
        named = _named(computation.get(2, []), computations)
        computations[computation[5][0]] = list(named.values())
        for name, instruction in named.items():
            module[name] = instruction
            module.setdefault(_kernel_name(name), instruction)
    return _text(fields, 1), module


def _named(
    protos: list[memoryview], computations: dict[int, list[Instruction]]
) -> Module:
    """The instructions of a computation, given those that they call.

    What the compiler has put in has no `op_name`. A fusion gets the one that is most
    frequent in it. Anything else gets that of what it reads, of the last one: operands
    stand before what reads them, so that a gradient of weights goes to the backward pass,
    and not to the forward pass that kept its activations.
    """
    order: dict[int, tuple[int, str]] = {}
    module: Module = {}
    for place, fields in enumerate(map(_grouped, protos)):
        metadata = _grouped(fields[7][0]) if 7 in fields else {}
        opcode, op_name = _text(fields, 2), _text(metadata, 2)
        body: list[Instruction] = []
        if opcode == "fusion":
            called = _numbers(fields, 38)
            body = [x for number in called for x in computations.get(number, [])]
        if opcode in ("parameter", "constant"):
            op_name = ""  # a parameter's is the name of a variable
        elif not op_name and (names := [x.op_name for x in body if x.op_name]):
            op_name = statistics.mode(names)
        elif not op_name and opcode not in CONTAINERS:
            read = [order[x] for x in _numbers(fields, 36) if x in order]
            op_name = max((x for x in read if x[1]), default=(0, ""))[1]
        order[fields[35][0]] = (place, op_name)
        module[_text(fields, 1)] = Instruction(
            opcode, op_name, _text(fields, 28), frozenset(x.opcode for x in body)
        )
    return module


def _numbers(fields: dict[int, list], number: int) -> list[int]:
    values: list[int] = []
    for packed in fields.get(number, []):
        values += [packed] if isinstance(packed, int) else _varints(packed)
    return values


def _text(fields: dict[int, list], number: int) -> str:
    return bytes(fields[number][0]).decode() if number in fields else ""


def _all(message: memoryview, number: int) -> list:
    return _grouped(message).get(number, [])


def _grouped(message: memoryview) -> dict[int, list]:
    grouped: dict[int, list] = {}
    for number, value in _fields(message):
        grouped.setdefault(number, []).append(value)
    return grouped


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Numbers and values of a protocol buffer: int, or bytes for everything else.

    Raises:
        ValueError, IndexError: the bytes are none.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        match key & 7:
            case 0:
                value, at = _varint(message, at)
            case 1 | 2 | 5 as kind:
                size = {1: 8, 5: 4}.get(kind)
                if size is None:
                    size, at = _varint(message, at)
                value, at = message[at : at + size], at + size
            case kind:
                raise ValueError(f"unknown wire type {kind}")
        yield key >> 3, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def _varints(message: memoryview) -> list[int]:
    values, at = [], 0
    while at < len(message):
        value, at = _varint(message, at)
        values.append(value)
    return values
