"""The program, as a person starts it."""

import contextlib
import functools
import json
import re
import signal
import subprocess
import sys
import urllib.request


def command(path, store, *more, table="--pairs={}/pairs.csv"):
    program = [sys.executable, "-m", "input_pipeline.curate", "--port=0"]
    program += [f"--store={store.name}", table.format(path)]
    return [*program, f"--data_dir={path / 'data'}", *more]


@contextlib.contextmanager
def running(program):
    """The program; its address is at the end of its first line."""
    # A shell's background jobs ignore Ctrl-C, and hand that on.
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, text=True, preexec_fn=heard
    ) as server:
        try:
            yield server
        finally:
            server.kill()


def address(server):
    return re.search(r"http://[\d.:]+", server.stdout.readline())[0]


def ask(url, body=None):
    """What the program answers to a request."""
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked) as answer:
        return json.load(answer)
