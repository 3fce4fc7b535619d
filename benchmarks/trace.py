"""Show where the time of a training step goes, from a profiler trace alone.

    python -m sp_jax.main --config=... --workdir=runs/one \
        --config.profile.first_step=20 --config.profile.steps=5
    python -m benchmarks.trace runs/one
    python -m benchmarks.trace --top=40 --json=trace.json runs/one

Prints steps, idle time, and the time by region of the step, by kind of operation and by
operation, of the newest trace below the folder. How to read it: docs/performance.md.
"""

import collections
import itertools
import json
import pathlib
import re
import statistics
from collections.abc import Callable
from typing import Any

from absl import flags

from benchmarks import xplane
from benchmarks.xplane import Op
from sp_jax import cli
from sp_jax.errors import UserError

_TOP = flags.DEFINE_integer("top", 15, "Operations to list.", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "File to write the numbers to.")

REGIONS = ("augment", "forward", "loss", "backward", "optimizer", "update", "metrics")
OTHER = "other"

# A gap that is shorter is the launch of a kernel; a longer one waits for something.
SHORT_GAP_US = 10.0
GAPS = 5


def region(op_name: str) -> str:
    """The region of a step to which an operation belongs.

    `jax.named_scope` and Flax leave their names in the operation's: the step's scopes,
    "jvp(...)" for what is differentiated, "transpose(...)" for its gradient.
    """
    for part in (parts := op_name.split("/")):
        if part in ("augment", "optimizer", "update", "metrics"):
            return part
        if part.startswith("transpose("):
            return "backward"
        if part == "loss" or part.startswith("jvp("):
            # Every method's network is a Flax module that ends so.
            return "forward" if re.search(r"Network\b", op_name) else "loss"
    return "forward" if "backbone" in parts else OTHER


def is_transfer(op: Op) -> bool:
    """Whether an operation moves data from or to the host: the device does not work."""
    return op.name.startswith(("MemcpyH2D", "MemcpyD2H"))


def regions(ops: list[Op]) -> tuple[list[str], float]:
    """The region of each operation, and the share of time that had to be inferred.

    What has no name (library kernels in a command buffer) is counted to the next
    operation of its stream that has one.
    """
    found: list[str] = []
    following: dict[str, str] = {}
    inferred = 0.0
    for op in reversed(ops):
        if op.op_name:
            following[op.line] = region(op.op_name)
        elif not is_transfer(op):
            inferred += op.busy
        found.append(OTHER if is_transfer(op) else following.get(op.line, OTHER))
    total = sum(op.busy for op in ops)
    return found[::-1], inferred / total if total else 0.0


_COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "all-to-all",
    "reduce-scatter",
    "collective-permute",
    "collective-broadcast",
)
_MOVES = {"copy", "transpose", "bitcast", "parameter", "reshape", "tuple", "broadcast"}
_MOVES |= {"copy-start", "copy-done", "slice", "concatenate", "get-tuple-element"}
# First match wins. Kernels of libraries, and all kernels whose program is not known.
_BY_NAME = (
    ("memcpy H2D", r"MemcpyH2D"),
    ("memcpy D2H", r"MemcpyD2H"),
    ("memcpy D2D", r"Memcpy"),
    ("copy", r"Memset"),
    ("collective", r"nccl|all-reduce|all-gather"),
    ("convolution", r"cudnn|conv(?!ert)|fprop|dgrad|wgrad|implicit_gemm|winograd"),
    ("matmul", r"gemm|cublas|cutlass|matmul|nvjet|(^|_)dot(_|\b)"),
    ("sort", r"[sS]ort"),
    ("reduce", r"reduce"),
    ("copy", r"^(loop_|input_)?(copy|transpose|slice|concatenate)"),
    ("fusion", r"fusion|wrapped"),
)


def kind(op: Op) -> str:
    """The kind of work of an operation, from its instruction, or else from its name."""
    code = op.instruction
    if code is None or code.opcode in xplane.CONTAINERS or op.name.startswith("Mem"):
        names = (label for label, text in _BY_NAME if re.search(text, op.name))
        return next(names, OTHER)
    inside = {code.opcode} | code.body
    if code.opcode.removesuffix("-start").removesuffix("-done") in _COLLECTIVES:
        return "collective"
    if "convolution" in inside or "cudnn$conv" in code.target:
        return "convolution"
    if "dot" in inside or "cublas" in code.target:
        return "matmul"
    if "sort" in inside or "cub$" in code.target:
        return "sort"
    if inside & {"reduce", "reduce-window", "select-and-scatter"}:
        return "reduce"
    if inside - {"fusion"} <= _MOVES:
        return "copy"
    return OTHER if code.opcode == "custom-call" else "fusion"


def find_steps(ops: list[Op]) -> tuple[str, list[Op], list[float]]:
    """Find the steps from the operations themselves: on a GPU the host's markers do not help.

    Most operations of a step run once in it, in a scan over steps as well. So the number
    of times that most of them ran is the number of steps, and the first of these begins
    each step.

    Returns:
        The name of the program that took most time, the operations from the beginning of
        its first step to its end, and when each step began, in nanoseconds.
    """
    busy = collections.Counter()
    for op in ops:
        busy[op.module, op.program] += op.busy if op.module else 0.0
    program = max(busy, key=busy.__getitem__)
    starts, end = collections.defaultdict(list), 0.0
    for op in ops:
        if (op.module, op.program) == program:
            starts[op.hlo_op, op.name].append(op.start)
            end = max(end, op.end)
    counts = collections.Counter(map(len, starts.values()))
    number = max(counts, key=lambda n: (counts[n], n))
    first = min((x for x in starts.values() if len(x) == number), key=min)
    return program[0], [op for op in ops if first[0] <= op.start < end], first


def gaps(ops: list[Op]) -> list[tuple[float, Op]]:
    """The gaps in which nothing ran: length in nanoseconds, and the operation that followed."""
    found, busy_until = [], ops[0].start
    for op in ops:
        if is_transfer(op):
            continue
        if op.start > busy_until:
            found.append((op.start - busy_until, op))
        busy_until = max(busy_until, op.end)
    return found


def summarise(trace: xplane.Trace, top: int) -> dict[str, Any]:
    """All numbers of the report, of the first device. Times are of one step, on average."""
    device = min(trace.devices)
    module, ops, starts = find_steps(trace.devices[device])
    steps = len(starts)
    end = max(op.end for op in ops if not is_transfer(op))
    lengths = [b - a for a, b in itertools.pairwise(starts)] or [end - starts[0]]
    where, inferred = regions(ops)
    region_of = dict(zip(map(id, ops), where, strict=True))
    total = sum(op.busy for op in ops)
    window = end - starts[0]
    idle = gaps(ops)

    def sums(key: Callable[[Op], Any]) -> dict[Any, dict[str, float]]:
        groups = collections.defaultdict(list)
        for op in ops:
            groups[key(op)].append(op)
        rows = {
            name: {
                "ms": (busy := sum(op.busy for op in group)) / steps / 1e6,
                "share": busy / total if total else 0.0,
                "count": len(group) / steps,
                "mean_us": busy / len(group) / 1e3,
            }
            for name, group in groups.items()
        }
        return dict(sorted(rows.items(), key=lambda row: -row[1]["ms"]))

    def describe(op: Op) -> dict[str, str]:
        return {
            "kernel": op.name,
            "instruction": op.hlo_op,
            "region": region_of[id(op)],
            "kind": kind(op),
            "op_name": op.op_name,
        }

    def identity(op: Op) -> tuple[str, ...]:
        # A library's kernel in a command buffer is of several regions.
        return op.hlo_op, op.name, region_of[id(op)]

    one = {identity(op): op for op in ops}
    waits = collections.defaultdict(list)
    for length, op in idle:
        waits[identity(op)].append(length)
    longest = sorted(waits.items(), key=lambda item: -sum(item[1]))[:GAPS]
    short = sum(length for length, _ in idle if length < SHORT_GAP_US * 1e3)
    by_region = sums(lambda op: region_of[id(op)])
    return {
        "device": device,
        "devices": len(trace.devices),
        "module": module,
        "markers": trace.steps,
        "steps": steps,
        "step_ms": {
            "median": statistics.median(lengths) / 1e6,
            "min": min(lengths) / 1e6,
            "max": max(lengths) / 1e6,
        },
        "idle": {
            "share": sum(length for length, _ in idle) / window if window else 0.0,
            "short_share": short / window if window else 0.0,
            "gaps": [
                {
                    "share": sum(lengths) / window,
                    "count": len(lengths) / steps,
                    "mean_us": statistics.fmean(lengths) / 1e3,
                    **describe(one[key]),
                }
                for key, lengths in longest
            ],
        },
        "inferred_share": inferred,
        "regions": {
            name: by_region[name] for name in (*REGIONS, OTHER) if name in by_region
        },
        "kinds": sums(kind),
        "ops": [
            {**row, **describe(one[key])}
            for key, row in itertools.islice(sums(identity).items(), top)
        ],
        "all_ops": {"ms": total / steps / 1e6, "count": len(ops) / steps},
    }


def report(summary: dict[str, Any]) -> str:
    """The numbers as text for a terminal."""
    step, idle, every = summary["step_ms"], summary["idle"], summary["all_ops"]
    marks = summary["markers"]
    marked = f", marked {marks[0]} to {marks[-1]} by the host" if marks else ""
    lines = [
        f"{summary['device']} (of {summary['devices']}), {summary['module']}: "
        f"{summary['steps']} steps{marked}",
        f"step   {step['median']:.3f} ms median, {step['min']:.3f} to {step['max']:.3f}",
        f"ops    {every['ms']:.3f} ms in {every['count']:.0f} operations a step",
        f"idle   {idle['share']:.1%}: {idle['short_share']:.1%} in gaps below "
        f"{SHORT_GAP_US:.0f} us, {idle['share'] - idle['short_share']:.1%} in longer ones",
    ]
    head = ("ms/step", "share", "ops/step", "us/op")
    for title in ("regions", "kinds"):
        rows = [(*_numbers(row), name) for name, row in summary[title].items()]
        lines += ["", *_table((*head, title.removesuffix("s")), rows)]
    if summary["inferred_share"] >= 0.005:
        lines.append(
            f"{summary['inferred_share']:.1%} of the time has no region of its own and "
            "counts to what follows it."
        )
    rows = [
        (*_numbers(row), row["region"], row["kind"], _short(row))
        for row in summary["ops"]
    ]
    lines += ["", *_table((*head, "region", "kind", "operation"), rows)]
    rows = [
        (
            f"{gap['share']:.1%}",
            f"{gap['count']:.1f}",
            f"{gap['mean_us']:.1f}",
            gap["region"],
            _short(gap),
        )
        for gap in idle["gaps"]
    ]
    if rows:
        head = ("idle", "gaps/step", "us/gap", "region", "followed by")
        lines += ["", *_table(head, rows)]
    return "\n".join(lines)


def _numbers(row: dict[str, float]) -> tuple[str, ...]:
    return (
        f"{row['ms']:.3f}",
        f"{row['share']:.1%}",
        f"{row['count']:.1f}",
        f"{row['mean_us']:.1f}",
    )


def _short(row: dict[str, str]) -> str:
    """An operation's instruction, its kernel if that is called otherwise, and its origin."""
    name = row["instruction"] or row["kernel"]
    same = xplane.same_name(row["kernel"], name)
    kernel = "" if same else f" {row['kernel'][:32]}"
    origin = [x for x in row["op_name"].split("/") if not x.startswith("jit(")][-4:]
    return f"{name}{kernel}  {'/'.join(origin)}".rstrip()


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Aligned columns: numbers to the right, names to the left."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    numbers = [
        all(x[:1].isdigit() for x in column) for column in zip(*rows, strict=True)
    ]
    return [
        "  ".join(
            x.rjust(width) if number else x.ljust(width)
            for x, width, number in zip(row, widths, numbers, strict=True)
        ).rstrip()
        for row in (head, *rows)
    ]


def main(folders: list[str]) -> None:
    """Report on the trace in the given folder."""
    if len(folders) != 1:
        raise UserError("Give one folder: a run's, or one with a trace.")
    path = xplane.find(folders[0])
    summary = summarise(xplane.read(path), _TOP.value)
    if _JSON.value:
        text = json.dumps({"trace": str(path), **summary}, indent=1)
        pathlib.Path(_JSON.value).write_text(text + "\n", encoding="utf-8")
    print(f"{path}\n{report(summary)}")


if __name__ == "__main__":
    cli.run(main, positional=True)
