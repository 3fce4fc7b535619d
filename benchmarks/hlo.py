"""Analyse a compiled program from its text.

XLA counts too, but not for each backend, and it does not know the kernels of libraries.
"""

import collections
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
# No kernels: names for memory that is there.
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast")
_WIDTH = {
    **{"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2},
    **{"s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8},
}
_COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(COLLECTIVES)})(?:-start)?\(")
_ARRAY = re.compile(r"\b(\w+)\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*?)\)(.*)")
_OPERAND = re.compile(r"%([\w.\-]+)")
_ORIGIN = re.compile(r'op_name="([^"]*)"')


class Kernel(NamedTuple):
    """One launch: the bytes it reads and writes, and its origin."""

    name: str
    bytes: int
    origin: str


def array_bytes(text: str) -> int:
    """Bytes of all arrays that a type names, such as `(f32[4,256]{1,0}, u8[2])`."""
    total = 0
    for kind, shape in _ARRAY.findall(text):
        if kind in _WIDTH:
            total += _WIDTH[kind] * math.prod(map(int, filter(None, shape.split(","))))
    return total


def find_collectives(text: str) -> dict[str, list[int]]:
    """Bytes of the result of each collective operation of a program, by kind."""
    found = collections.defaultdict(list)
    for line in text.splitlines():
        if match := _COLLECTIVE.search(line):
            found[match[2]].append(array_bytes(match[1]))
    return found


def find_kernels(text: str) -> Iterator[Kernel]:
    """The kernels of a program for a GPU, each with the bytes of operands and results.

    An operand counts whole, also if the kernel reads a part of it. The workspace of a
    library's kernel does not count.

    Raises:
        ValueError: the program has a loop: how often it runs is not known here.
    """
    _, _, entry = text.partition("\nENTRY ")
    if not entry:
        raise ValueError("This is not the text of a compiled program: it has no ENTRY.")
    sizes = {}
    for line in entry.splitlines():
        if not (match := _INSTRUCTION.search(line)):
            continue
        name, kind, operation, operands, rest = match.groups()
        if operation == "while":
            raise ValueError(f"The program has a loop, {name}, which is not counted.")
        sizes[name] = array_bytes(kind)
        if '"__cu' in rest and kind.startswith("("):
            # cuBLAS and cuDNN: the last result is the workspace.
            *results, _ = _ARRAY.finditer(kind)
            sizes[name] = sum(array_bytes(result[0]) for result in results)
        if operation not in _FREE:
            read = sum(sizes.get(operand, 0) for operand in _OPERAND.findall(operands))
            origin = _ORIGIN.search(rest)
            yield Kernel(name, read + sizes[name], origin[1] if origin else "")
