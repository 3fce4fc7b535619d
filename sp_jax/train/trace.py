"""A trace of some steps by JAX's profiler."""

import math
import pathlib

import jax
from ml_collections import ConfigDict

from sp_jax.errors import UserError


def trace_options() -> dict[str, jax.profiler.ProfileOptions]:
    """Arguments of `jax.profiler.start_trace` and `trace`."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # its events are many, and hide the device's
    return {"profiler_options": options}


def check_profile(profile: ConfigDict, total_steps: int) -> None:
    """Raise UserError if a run of so many steps has none that `config.profile` asks for."""
    if profile.steps and profile.first_step >= total_steps:
        raise UserError(
            f"config.profile.first_step={profile.first_step} would trace nothing, because the "
            f"run has {total_steps} steps: choose an earlier one."
        )


class Trace:
    """Traces a run from one step to another, in its folder `profile`."""

    def __init__(
        self, workdir: pathlib.Path, first: int, steps: int, resume_step: int, last: int
    ):
        """Plan the steps: from `first` on, or from `resume_step` if that is later."""
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

    def begins(self, step: int) -> bool:
        """Whether the trace begins before the step after `step` steps."""
        return self._wanted and step == self._begins

    def ends(self, step: int) -> bool:
        """Whether a running trace ends after `step` steps."""
        return self._running and step == self._ends

    def begin(self) -> None:
        """Begin; the device has to be idle."""
        jax.profiler.start_trace(self._folder, **trace_options())
        self._running = True

    def end(self) -> str:
        """End; returns a message that says what was written."""
        self.close()
        return f"Wrote a profile of steps {self._begins} to {self._ends - 1}."

    def close(self) -> None:
        """End a trace that is running."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
