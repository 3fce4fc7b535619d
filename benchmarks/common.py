"""Shared parts of the benchmarks: turns, round after round, and tables in Markdown."""

import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

Name, Result = TypeVar("Name"), TypeVar("Result")

# Neither jax nor torch at the top: `benchmarks.peers` gives each a process of its own.


def take_turns(
    turns: Mapping[Name, Callable[[], Result]], rounds: int, warm_up: int = 0
) -> dict[Name, list[Result]]:
    """Results of each turn in each round; other load on the machine hits all turns equally.

    Args:
        turns: what to call, by name.
        rounds: in which all take their turn.
        warm_up: rounds before, which do not count.
    """
    found: dict[Name, list[Result]] = {name: [] for name in turns}
    for number in range(-warm_up, rounds):
        for name, turn in turns.items():
            result = turn()
            if number >= 0:
                found[name].append(result)
    return found


def time_steps(
    programs: Mapping[Name, tuple[Callable, Any]], state: Any, steps: int, rounds: int
) -> tuple[dict[Name, list[float]], Any, dict[str, Any]]:
    """Time compiled training steps in turns, one after the other on the same state.

    Args:
        programs: by name the step and its batch.
        state: the first one; it is donated.
        steps: of a turn.
        rounds: that count; one before warms up.

    Returns:
        Milliseconds a step in each round, the last state and the last metrics.
    """
    import jax

    metrics = {}

    def turn(program: Callable, batch: Any) -> float:
        nonlocal state, metrics
        jax.block_until_ready(state)
        started = time.perf_counter()
        for _ in range(steps):
            state, metrics, _ = program(state, batch)
        jax.block_until_ready(state)
        return 1e3 * (time.perf_counter() - started) / steps

    turns = {
        name: lambda program=program: turn(*program)
        for name, program in programs.items()
    }
    return take_turns(turns, rounds, warm_up=1), state, metrics


def table_head(columns: Sequence[str]) -> str:
    """The first two lines of a table in Markdown."""
    return f"{table_row(columns)}\n|{'---|' * len(columns)}"


def table_row(cells: Iterable[Any]) -> str:
    """A line of a table in Markdown."""
    return f"| {' | '.join(map(str, cells))} |"


def spread(values: Sequence[float], show: str | Callable[[float], str]) -> list[str]:
    """Two cells: the median and the range. `show` is a format or a function."""
    form = show if callable(show) else lambda value: format(value, show)
    low, middle, high = min(values), statistics.median(values), max(values)
    return [form(middle), f"{form(low)} to {form(high)}"]


def append_json(path: str | None, row: Mapping[str, Any]) -> None:
    """Append a row to a file of JSON lines, if there is one."""
    if path:
        with open(path, "a") as file:
            file.write(json.dumps(row) + "\n")
