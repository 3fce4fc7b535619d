"""A command of a run that takes as long as it is told, and leaves a line each time."""

import os
import pathlib
import signal
import sys
import time


def main(folder, name, seconds, *rest):
    """Leave a line in `calls_NAME`, and, if it comes to its end, in `ends_NAME`."""
    with open(pathlib.Path(folder) / f"calls_{name}", "a") as file:
        print(*rest, file=file)
    if rest == ("fail",):
        sys.exit("error: there is no luck today")
    if rest == ("kill",):
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(float(seconds))
    with open(pathlib.Path(folder) / f"ends_{name}", "a") as file:
        print(*rest, file=file)


if __name__ == "__main__":
    main(*sys.argv[1:])
