"""SIGTERM and Ctrl-C: noted, so that the loop can save between two steps and end."""

import signal
import threading
from types import FrameType

import jax
from jax.experimental import multihost_utils


class StopSignals:
    """A context in which the two signals end nothing; a second Ctrl-C does.

    Of several processes JAX catches the signals, and tells the others.
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
        if main and not self._several:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        """Leave them to whoever had them before."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._by = signal.Signals(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            print("Ctrl-C: the step is saved next; once more ends at once.", flush=True)

    def asked(self) -> signal.Signals | None:
        """Which signal asks to stop; to be asked once after each call of the step.

        Several processes agree on the number of a call after which all of them stop: they
        could agree on a step inside of a call.
        """
        self._calls += 1
        if self._several and multihost_utils.reached_preemption_sync_point(self._calls):
            return signal.SIGTERM
        return self._by
