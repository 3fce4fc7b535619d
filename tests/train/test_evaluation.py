"""When evaluations are measured."""

import pytest

from sp_jax.errors import UserError
from sp_jax.train.evaluation import Evaluation, evaluate


class Log:
    """Notes what it is told."""

    def __init__(self):
        self.written, self.said = [], []

    def write(self, step, numbers):
        """Of the record."""
        self.written.append((step, *numbers))

    def say(self, text):
        """Of the console."""
        self.said.append(text)


def measured(every, untrained, steps=range(11), measure=lambda *_: {"x": 1.0}):
    """At which of 10 steps it is measured, and which are in the record."""
    at, log = [], Log()

    def note(state, step):
        at.append(step)
        return measure(state, step)

    for step in steps:
        evaluate([Evaluation(note, every, ["x"], untrained)], None, step, 10, log)
    return at, [step for step, _ in log.written], log.said


def test_the_floor_is_measured_before_the_first_step_and_is_no_curve():
    assert measured(4, True)[:2] == ([0, 4, 8, 10], [0, 4, 8, 10])
    assert measured(0, True)[:2] == ([0, 10], [10])
    assert measured(0, False)[:2] == ([10], [10])
    assert measured(0, True, range(5, 11))[0] == [10]  # resumed


def test_a_floor_that_cannot_be_measured_stops_no_run():
    def fail(state, step):
        raise UserError("It diverged.")

    at, written, said = measured(0, True, [0], fail)
    assert at == [0] and not written and "It diverged." in said[0]
    for every, step in ((4, 0), (0, 10)):
        with pytest.raises(UserError, match="diverged"):
            measured(every, True, [step], fail)
