"""Around a program that trains from a config file: flags, words, exit codes."""

import logging
import os
import pathlib
import sys
import traceback
from collections.abc import Callable

import jax
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from sp_jax import distributed, xla_flags
from sp_jax.errors import UserError
from sp_jax.train.loop import NonFiniteLossError

Run = Callable[[ConfigDict, pathlib.Path], None]

flags.disclaim_key_flags()  # they are the program's: its --help lists them


def main(
    run: Run,
    example: str,
    folder: Callable[[str], pathlib.Path] = lambda name: pathlib.Path("runs") / name,
) -> None:
    """Define the flags, read them, and train; does not return.

    The exit code is 0, or 2 for a mistake of the user, or 1 for a diverged run.

    Args:
        run: `run(config, workdir)`.
        example: a config file, for the words of an error.
        folder: name of the config file to the workdir, if no flag says it.
    """
    _define_flags()
    # Compiled programs are kept between runs: a resumed run starts in seconds.
    cache = os.path.join(os.path.expanduser("~"), ".cache", "sp_jax", "xla")
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", cache)
    xla_flags.set_cpu_flags()
    app.run(
        lambda argv: _run(run, folder, argv),
        flags_parser=lambda argv: parse_flags(argv, "config", example),
    )


def _define_flags() -> None:
    # Options of a method, a backbone or an evaluator that the file does not name can be
    # given on the command line too; `validate.check_keys` refuses every other new key.
    config_flags.DEFINE_config_file(
        "config",
        None,
        "Path of a config file.",
        lock_config=False,
        accept_new_attributes=True,
    )
    flags.DEFINE_string(
        "workdir",
        None,
        "Folder of the run. The default has the config file's name.",
    )
    flags.DEFINE_bool(
        "distributed",
        False,
        "One of several processes; SLURM, Kubernetes, MPI or a TPU tells which.",
    )
    flags.DEFINE_string(
        "coordinator",
        None,
        "One of several processes: HOST:PORT of process 0, the same for all. Needs "
        "--processes and --process.",
    )
    flags.DEFINE_integer("processes", None, "Number of processes.", 1)
    flags.DEFINE_integer("process", None, "Number of this process, from 0.", 0)


def _run(run: Run, folder: Callable[[str], pathlib.Path], argv: list[str]) -> int:
    values = flags.FLAGS
    if len(argv) > 1:
        print(
            f"error: unknown argument {argv[1]!r}: flags start with --.",
            file=sys.stderr,
        )
        return 2
    # absl's own logger stays at warnings: Orbax reports every read and write there.
    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(logging.WARNING)
    logging.getLogger("jax").setLevel(logging.WARNING)
    name = pathlib.Path(values["config"].config_filename).stem
    workdir = pathlib.Path(values.workdir or folder(name)).absolute()
    several = (values.coordinator, values.processes, values.process)
    words = None
    try:
        if values.distributed or several != (None, None, None):
            words = distributed.join(values.distributed, *several)
            words.set(
                f"Process {jax.process_index()} of {jax.process_count()} ended in the "
                "middle of the run: it was killed, or it lost another process (see above, "
                "and the logs of the others). Start all of them again as before: the run "
                f"in {workdir} goes on from its newest checkpoint."
            )
        else:
            distributed.warn_if_alone()
        run(values.config, workdir)
        code = 0
    except (UserError, NonFiniteLossError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2 if isinstance(error, UserError) else 1
    except Exception:
        if words is None:
            raise
        traceback.print_exc()
        distributed.leave(1)
    if words:
        words.set("")
        if code:
            distributed.leave(code)
    return code


def parse_flags(argv: list[str], name: str, example: str) -> list[str]:
    """Parse the command line; one sentence and exit code 2 where it is wrong.

    Args:
        argv: the command line.
        name: of the flag with the config file.
        example: a config file, for the words of an error.
    """
    try:
        if not any("help" in arg for arg in argv):
            _check_config_file(argv, name, example)
        return flags.FLAGS(argv)
    except (UserError, flags.Error) as error:
        message = str(error)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # ml_collections: an unknown key, or a value of the wrong type.
        message = f"The config is wrong: {' '.join(str(error).split())}"
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _check_config_file(argv: list[str], flag: str, example: str) -> None:
    """ml_collections reports a missing file late, and with a traceback."""
    for arg, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, path = arg.lstrip("-").partition("=")
        if arg.startswith("-") and name == flag:
            path = (path if equals else following).partition(":")[0]
            if not os.path.isfile(path):
                raise UserError(f"There is no config file {path!r}.")
            return
    raise UserError(f"Give a config file, such as --{flag}={example}.")
