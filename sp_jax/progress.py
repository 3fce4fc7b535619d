"""The progress of long work and the time left, shown by every program in the same way.

A terminal shows one line, which is redrawn; a file or a pipe gets a line every 15 seconds.
Work within work follows after ">": `suite 3/24, 4:10 left > features of emoji 512/2,048, …`.
Work of less than 15 seconds shows little or nothing, so that small loops may use it, too.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

REDRAW = 0.5  # Seconds between two drawings on a terminal.
LINE = 15.0  # Seconds of silence in a file or a pipe.

T = TypeVar("T")


class Progress:
    """One piece of work; `show` makes it.

    Attributes:
      what: the work, in a few words.
      total: the number of its parts, if that is known.
      note: more to show, after the time that is left.
    """

    def __init__(self, what: str, total: int | None, unit: str, done: int) -> None:
        self.what, self.total, self.note = what, total, ""
        self._unit, self._done = unit, done
        self._started = time.monotonic()
        # When the first part was done: it compiles, so its time says nothing about the others.
        self._first: tuple[float, int] | None = None

    def update(self, count: int = 1) -> None:
        """Count more parts as done."""
        self._done += count
        if self._first is None:
            self._first = time.monotonic(), self._done

    def describe(self, width: int | None = None) -> str:
        """For example "fine-tuning 120/3,000 steps, 2:10 left".

        If a width is given, the words are shortened to fit it, not the numbers.
        """
        now = time.monotonic()
        text, left = "", None
        if self.total is not None:
            done = min(self._done, self.total)  # The last block may be padded.
            text += f" {done:,}/{self.total:,} {self._unit}".rstrip()
            if self._first and done > self._first[1]:
                since, first = self._first
                left = (self.total - done) * (now - since) / (done - first)
        since = f"{clock(now - self._started)} so far"
        text += f", {since if left is None else f'{clock(left)} left'}"
        words = self.what if width is None else self.what[: max(0, width - len(text))]
        text = (words + text).lstrip(" ,")
        return (f"{text}, {self.note}" if self.note else text)[:width]


class _Display:
    """The line of all unfinished work, and the thread that draws it while there is any."""

    def __init__(self) -> None:
        self.silent = False
        self._open: list[Progress] = []
        self._lock = threading.RLock()
        self._idle = threading.Event()
        self._drawn = 0  # Characters on the terminal.
        self._spoke = (
            self._ended
        ) = -LINE  # When we last said a line, or all work ended.

    def add(self, work: Progress) -> None:
        with self._lock:
            self._open.append(work)
            if len(self._open) > 1 or self.silent:
                return
            # Many short pieces of work in a row shall show something, too.
            now = time.monotonic()
            if now - self._ended >= LINE:
                self._spoke = now
            self._idle = threading.Event()
            threading.Thread(target=self._run, args=[self._idle], daemon=True).start()

    def remove(self, work: Progress) -> None:
        with self._lock:
            self._open.remove(work)
            if not self._open:
                self._idle.set()
                with _gone():
                    self._clear()
                self._ended = time.monotonic()

    def say(self, text: str) -> None:
        with self._lock:
            with _gone():
                self._clear()
                print(text, flush=True)
            self._spoke = time.monotonic()

    def _run(self, idle: threading.Event) -> None:
        while not idle.wait(REDRAW):
            with self._lock, _gone():
                if self._open and idle is self._idle:
                    self._draw()

    def _draw(self) -> None:
        # Work of a single part, such as one seed, says nothing.
        *around, last = self._open
        shown = [work for work in around if work.total != 1] + [last]
        text = " > ".join(work.describe() for work in shown)
        if on_terminal():
            width = _width() - 1  # Some terminals break the line after the last column.
            if len(text) > width:
                text = f"{shown[0].describe()} > {last.describe()}"
            if len(text) > width:
                text = last.describe(width)
            # The cursor goes back, so that warnings and the like start at the line's begin.
            self._write(f"\r{text.ljust(self._drawn)}\r")
            self._drawn = len(text)
        elif time.monotonic() - self._spoke >= LINE:
            self._write(f"{text}\n")
            self._spoke = time.monotonic()

    def _clear(self) -> None:
        if self._drawn:
            self._write(f"\r{' ' * self._drawn}\r")
            self._drawn = 0

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def _gone() -> contextlib.AbstractContextManager[None]:
    """Go on where nobody reads any more: a closed pipe or terminal, a full disk of a log."""
    return contextlib.suppress(OSError, ValueError)


_display = _Display()


@contextlib.contextmanager
def show(
    what: str, total: int | None = None, unit: str = "", done: int = 0
) -> Iterator[Progress]:
    """Show this work while it is done; call `update` for each of `total` parts.

    Without a total, as for a compilation, only the time so far is shown. Calls may be nested.
    """
    work = Progress(what, total, unit, done)
    _display.add(work)
    try:
        yield work
    finally:
        _display.remove(work)


def track(
    parts: Iterable[T], what: str, unit: str = "", total: int | None = None
) -> Iterator[T]:
    """Iterate over parts and show how many are done; give an iterator its length, `total`."""
    if isinstance(parts, Sized):
        total = len(parts)
    with show(what, total, unit) as work:
        for part in parts:
            yield part
            work.update()


def say(text: str) -> None:
    """Print a line to stdout, above what is shown."""
    _display.say(text)


def silence() -> None:
    """Show nothing from now on, because another process does."""
    _display.silent = True


def on_terminal() -> bool:
    """Whether stderr is a terminal that can redraw a line."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _width() -> int:
    """Columns of the terminal; 80 if they are unknown."""
    with contextlib.suppress(OSError, ValueError):
        if columns := os.get_terminal_size(sys.stderr.fileno()).columns:
            return columns
    return 80


def clock(seconds: float) -> str:
    """A time in words such as 0:09, 12:30 or 3:02:00."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
