"""How a program starts, and how it reports a mistake: one sentence and exit code 2."""

import errno
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable

from absl import app, flags, logging

from sp_jax.errors import TerminatedError, UserError

TERMINATED = 128 + signal.SIGTERM  # as shells report it
# What a limit of the system means, and what to do about it.
_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "your quota on the disk is used up: free some space",
    errno.EFBIG: "the file would exceed the size limit: raise the limit (ulimit -f)",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine: end other programs",
    errno.ENOMEM: "there is not enough memory: end other programs",
    errno.EAGAIN: "too many threads or processes: raise the limit (ulimit -u)",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EACCES: "permission denied: choose another folder, or change its permissions",
    errno.EPERM: "permission denied: choose another folder, or change its permissions",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
    errno.ENOTDIR: "part of the path is a file: choose another path",
    errno.EISDIR: "it is a folder, but a file is needed: choose another path",
    errno.EEXIST: "it exists and is not a folder: choose another path",
    errno.ENOENT: "there is no such file or folder: check the path",
}


def run(program: Callable[..., int | None], positional: bool = False) -> None:
    """Parse the flags and run a program, which returns the exit code or None; does not return.

    With `positional` it is called with the list of the words that are not flags; otherwise
    such a word is a mistake.
    """

    def parse(argv: list[str]) -> list[str]:
        try:
            return flags.FLAGS(read_paths(argv))
        except (flags.Error, UserError) as error:
            sys.exit(report(error))

    def main(argv: list[str]) -> int:
        logging.set_verbosity(logging.WARNING)  # Orbax reports every read.
        if positional:
            return guard(lambda: program(argv[1:]))
        if argv[1:]:
            return report(f"Unknown argument {argv[1]!r}: options start with --.")
        return guard(program)

    app.run(main, flags_parser=parse)


def read_paths(argv: list[str]) -> list[str]:
    """A command line in which the home folder replaces each ~, as in --out=~/a.

    Shells replace it only at the beginning of a word, and a folder "~" would be made.
    A path in a cloud bucket raises UserError.
    """
    check_paths(word for word in argv[1:] if not word.startswith("--licence="))
    home = os.path.expanduser("~")
    return [re.sub(r"(?<=[=:,])~(?=/|,|$)", lambda _: home, word) for word in argv]


def check_paths(words: Iterable[str]) -> None:
    """Raise UserError for a path in a cloud bucket: it would become a folder such as "gs:"."""
    for word in words:
        if found := re.search(r"(?:^|[=:,])([a-z][a-z0-9+.-]*)://", word):
            raise UserError(
                f"{word}: only folders of this machine can be read and written. Mount "
                f"the {found[1]}:// storage as a folder, or copy it."
            )


def guard(program: Callable[[], int | None]) -> int:
    """Call a program and return its exit code; a mistake becomes one printed sentence.

    A `UserError` and a limit of the system end it with code 2, Ctrl-C with 130, SIGTERM
    before the end of a training with 143. Every other exception is a fault of the program and
    is raised.
    """
    try:
        return program() or 0
    except UserError as error:
        return report(error)
    except OSError as error:
        return report(describe_os_error(error))
    except TerminatedError:
        return TERMINATED
    except KeyboardInterrupt:
        print("Stopped by Ctrl-C.", file=sys.stderr)
        return 130
    except Exception as error:
        if limit := describe_limit(error):
            return report(limit)
        raise


def report(error: Exception | str) -> int:
    """Print an error's sentence, and return the exit code for a user's mistake."""
    print(f"error: {error}", file=sys.stderr)
    return 2


def describe_os_error(error: OSError) -> str:
    """One sentence with the file, the cause and what to do."""
    advice = _ADVICE.get(error.errno)
    if advice is None:
        return f"{error}: check the path, its permissions and the disk."
    names = [os.fspath(n) for n in (error.filename, error.filename2) if n is not None]
    where = f"{names[0]!r} cannot be used: " if names else ""
    sentence = f"{where}{advice} ({error.strerror})."
    return sentence[0].upper() + sentence[1:]


def describe_limit(error: Exception) -> str | None:
    """One sentence, if an exception says that there is not enough memory or threads."""
    # By its name: most programs do not load jax.
    of_jax = type(error).__name__ in ("XlaRuntimeError", "JaxRuntimeError")
    if of_jax and "RESOURCE_EXHAUSTED" in str(error):
        return (
            "The device does not have enough memory: use a smaller batch, or for "
            "training --config.model.chunks=4 or --config.model.remat=True, which need less."
        )
    if isinstance(error, MemoryError):
        return (
            "This machine does not have enough memory: end other programs, raise the "
            "limit (ulimit -v), or use smaller images or batches."
        )
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return (
            "No more threads can be started: raise the limit of processes (ulimit -u), or "
            "end other programs."
        )
    return None
