"""SIGTERM and Ctrl-C are noted, so that the loop can save between two steps and end."""

import os
import signal
import threading
from types import FrameType

import jax
from jax.experimental import multihost_utils


class StopSignals:
    """A context in which the two signals are only noted; a second Ctrl-C ends the program.

    With several processes JAX catches SIGTERM and informs the others; Ctrl-C becomes one.
    """

    def __init__(self):
        self._by: signal.Signals | None = None
        self._previous = {}
        self._several = jax.process_count() > 1
        self._calls = 0

    def __enter__(self) -> "StopSignals":
        """Catch the signals."""
        # Python lets only the main thread handle signals.
        main = threading.current_thread() is threading.main_thread()
        if main:
            self._catch(signal.SIGINT)
        if main and not self._several:
            self._catch(signal.SIGTERM)
        return self

    def _catch(self, number: int) -> None:
        self._previous[number] = signal.signal(number, self._note)

    def __exit__(self, *_) -> None:
        """Restore the previous handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._by = signal.Signals(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            print("Ctrl-C: saving this step; press again to stop at once.", flush=True)
            if self._several:
                os.kill(os.getpid(), signal.SIGTERM)

    def asked(self) -> signal.Signals | None:
        """The signal that asks to stop, or None; to be called once after each call of the step.

        Several processes agree on the number of the call after which all of them stop. If
        they agreed on a step, it could lie inside a call.
        """
        self._calls += 1
        if not self._several:
            return self._by
        due = multihost_utils.reached_preemption_sync_point(self._calls)
        return signal.SIGTERM if due else None
