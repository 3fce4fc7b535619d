"""The exception that the project raises for a mistake that the user can fix."""


class UserError(ValueError):
    """One clear sentence that says what is wrong and what to do about it.

    The command line programs print it without a traceback and exit with code 2.
    """


class TerminatedError(RuntimeError):
    """SIGTERM ended a run before its last step; the same command goes on."""


class NonFiniteError(RuntimeError):
    """A loss or a gradient is infinite or not a number, on all processes alike."""
