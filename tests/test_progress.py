import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from sp_jax import progress

WORK = """
import sys, time
from sp_jax import progress
progress.REDRAW, progress.LINE = 0.05, 0.2
with progress.show("suite", 2, "evaluations") as suite:
    for name in "ab":
        for _ in progress.track(range(20), f"features of {name}", "images"):
            time.sleep(0.03)
        progress.say(f"{name} is done")
        suite.update()
"""


def run_on_terminal(columns, **env):
    """What a program writes to a terminal of so many columns (and lines)."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", columns, columns, 0, 0))
    command = [sys.executable, "-c", WORK]
    env = {**os.environ, "TERM": "xterm", **env}
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        parts = []
        try:
            while part := os.read(ours, 4096):
                parts.append(part)
        except OSError:  # The other end was closed.
            pass
        os.close(ours)
    assert process.returncode == 0
    return b"".join(parts).decode()


@pytest.mark.parametrize("columns", [0, 20, 200])
def test_a_terminal_of_any_width_shows_one_line(columns):
    written = run_on_terminal(columns, COLUMNS="0")
    drawn = [line.rstrip() for line in written.replace("\n", "\r").split("\r")]
    assert all(len(line) < (columns or 80) for line in drawn)
    assert {"a is done", "b is done"} <= set(drawn)
    if columns == 20:  # The numbers are there before the words.
        assert any(re.match(r"\d+/20 images, 0:0", line) for line in drawn)
    else:
        assert any("suite 1/2 evaluations, 0:0" in line for line in drawn)
        assert any(re.search(r"> features of b \d+/20 im", line) for line in drawn)
    # Each line is written over, and at the end nothing is left of it.
    assert written.count("\n") == 2 and drawn[-1] == ""


def test_without_a_terminal_that_can_redraw_there_are_lines():
    dumb = run_on_terminal(80, TERM="dumb").splitlines()
    command = [sys.executable, "-c", WORK]
    piped = subprocess.run(command, capture_output=True, text=True, check=True)
    assert piped.stdout == "a is done\nb is done\n"
    for lines in (dumb, piped.stderr.splitlines()):
        shown = [line for line in lines if "is done" not in line]
        assert 2 <= len(shown) <= 8
        assert all(
            line.startswith("suite ") and " > features" in line for line in shown
        )
        assert shown[0].endswith(" left")


def test_the_first_part_does_not_count_for_the_time_left(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    work = progress.Progress("fine-tuning", 2000, "steps", 0)
    now[0] = 40.0
    assert work.describe() == "fine-tuning 0/2,000 steps, 0:40 so far"
    work.update(1000)
    now[0] = 50.0
    work.update(100)
    assert work.describe() == "fine-tuning 1,100/2,000 steps, 1:30 left"
    assert work.describe(30) == "f 1,100/2,000 steps, 1:30 left"
    work.note = "loss 0.5"
    work.update(2000)
    assert work.describe() == "fine-tuning 2,000/2,000 steps, 0:00 left, loss 0.5"
    assert (
        progress.Progress("compiling", None, "", 0).describe()
        == "compiling, 0:00 so far"
    )


def test_work_that_fails_is_no_longer_shown():
    with pytest.raises(RuntimeError), progress.show("preparing"):
        raise RuntimeError
    assert not progress._display._open


def test_nobody_reads_any_more(monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    monkeypatch.setattr(sys, "stderr", Full())
    progress.say("It goes on.")
    with progress.show("work"):
        progress.say("So does this.")
