"""A trace of some steps by JAX's profiler."""

import math
import pathlib
from typing import Any

import jax

from sp_jax.errors import UserError


def trace_options() -> dict[str, jax.profiler.ProfileOptions]:
    """Arguments of `jax.profiler.start_trace` and `trace`."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # its events are many, and hide the device's
    return {"profiler_options": options}


class Trace:
    """Traces a run from one step to another, in its folder `profile`."""

    def __init__(
        self, workdir: pathlib.Path, first: int, steps: int, resume_step: int, last: int
    ):
        """Plan the steps: from `first` on, or from `resume_step` if that is later.

        A run whose `last` step comes before is a UserError.
        """
        if steps and first >= last:
            raise UserError(
                f"config.profile.first_step={first} would trace nothing, because the run has "
                f"{last} steps: choose an earlier one."
            )
        self._folder = workdir / "profile"
        self._begins = max(first, resume_step)
        self._ends = min(self._begins + steps, last)
        self._pauses = (self._begins, self._ends) if steps else ()
        # Several processes of a host would write into one file.
        self._wanted = steps > 0 and jax.process_index() == 0
        self._running = False

    def next_pause(self, step: int) -> float:
        """The next step at which a trace begins or ends: all processes pause there."""
        return min((at for at in self._pauses if at > step), default=math.inf)

    def before(self, step: int, state: Any) -> None:
        """Begin a trace if it is due."""
        if self._wanted and step == self._begins:
            jax.block_until_ready(state)
            jax.profiler.start_trace(self._folder, **trace_options())
            self._running = True

    def after(self, step: int, state: Any) -> str:
        """End the trace if it is due; returns a message that says what was written."""
        if not self._running or step != self._ends:
            return ""
        jax.block_until_ready(state)
        self.close()
        return f"Wrote a profile of steps {self._begins} to {step - 1}."

    def close(self) -> None:
        """End a trace that is running."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
