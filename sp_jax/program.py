"""The frame of a program that trains from a config file: flags, messages, exit codes."""

import difflib
import logging
import os
import pathlib
import re
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import jax
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from sp_jax import cli, distributed, xla_flags
from sp_jax.config import load_config
from sp_jax.errors import NonFiniteError, UserError
from sp_jax.train.checkpoint import find_steps

Train = Callable[[ConfigDict, pathlib.Path], None]

flags.disclaim_key_flags()  # they are the program's: its --help lists them


def main(
    train: Train,
    example: str,
    folder: Callable[[str], pathlib.Path] = lambda name: pathlib.Path("runs") / name,
) -> None:
    """Define the flags, read them, and train; does not return.

    The exit code is 0, 2 for a mistake of the user or a limit of the system, 1 for a
    diverged run, or 130 after Ctrl-C. An error names the config file `example`. Without the
    flag --workdir, `folder` makes the workdir from the config file's name.
    """
    _define_flags()
    # Compiled programs are kept between runs: a resumed run starts in seconds.
    cache = os.path.join(os.path.expanduser("~"), ".cache", "sp_jax", "xla")
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", cache)
    xla_flags.set_cpu_flags()
    app.run(
        lambda argv: _run(train, folder, argv),
        flags_parser=lambda argv: parse_flags(argv, "config", example),
    )


def _define_flags() -> None:
    # Options of a method, a backbone or an evaluator that the file does not name can be
    # given on the command line too; `validate.check_keys` refuses every other new key.
    text = "Path of a config file."
    config_flags.DEFINE_config_file(
        "config", None, text, lock_config=False, accept_new_attributes=True
    )
    text = "Folder of the run. By default it is named after the config file."
    flags.DEFINE_string("workdir", None, text)
    flags.DEFINE_bool(
        "distributed",
        False,
        "Train as one of several processes, started by SLURM, Kubernetes, MPI or on a TPU.",
    )
    flags.DEFINE_string(
        "coordinator",
        None,
        "Train as one of several processes: HOST:PORT of process 0, the same for all. "
        "Needs --processes and --process.",
    )
    flags.DEFINE_integer("processes", None, "Number of processes.", 1)
    flags.DEFINE_integer("process", None, "Number of this process, from 0.", 0)


def _run(train: Train, folder: Callable[[str], pathlib.Path], argv: list[str]) -> int:
    values = flags.FLAGS
    if len(argv) > 1:
        return cli.report(f"Unknown argument {argv[1]!r}: flags start with --.")
    # absl's own logger stays at warnings: Orbax reports every read and write there.
    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(logging.WARNING)
    logging.getLogger("jax").setLevel(logging.WARNING)
    _quiet_threads()
    name = pathlib.Path(values["config"].config_filename).stem
    workdir = pathlib.Path(values.workdir or folder(name)).absolute()
    several = (values.coordinator, values.processes, values.process)
    words = None

    def start() -> None:
        nonlocal words
        if values.distributed or several != (None, None, None):
            words = distributed.join(values.distributed, *several)
            words.set(
                f"Process {jax.process_index()} of {jax.process_count()} ended in the "
                "middle of the run: it was killed, or it lost another process (see above, "
                "and the logs of the others). Start all of them again as before: the run "
                f"in {workdir} continues from its newest checkpoint."
            )
        else:
            distributed.warn_if_alone()
        xla_flags.warn_of_idle_gpu()
        try:
            train(values.config, workdir)
        except OSError as error:
            raise UserError(
                f"{cli.describe_os_error(error)} {_how_to_go_on(workdir)}"
            ) from error

    try:
        code = cli.guard(start)
    except NonFiniteError as error:
        steps = find_steps(workdir / "checkpoints")
        kept = (
            f"The last good checkpoint is {steps[0]}."
            if steps
            else "No step was saved."
        )
        print(f"error: {error} {kept}", file=sys.stderr)
        code = 1
    except Exception:
        if words is None:
            raise
        traceback.print_exc()
        distributed.leave(1)
    if words:
        words.end()
        # After SIGTERM all processes end together, as after the last step.
        if code not in (0, cli.TERMINATED):
            distributed.leave(code)
    return code


def _quiet_threads() -> None:
    """Print an exception in a thread as one line: Orbax raises it again at its next call."""

    def in_thread(args: threading.ExceptHookArgs) -> None:
        words = str(args.exc_value).split("\n")[0][:200]
        logging.warning("A thread ended with %s: %s", args.exc_type.__name__, words)

    def elsewhere(kind: type, error: BaseException, trace: Any) -> None:
        # After a save that failed, Orbax's store of arrays prints this error, too.
        if "Event loop is closed" not in str(error):
            sys.__excepthook__(kind, error, trace)

    threading.excepthook, sys.excepthook = in_thread, elsewhere


def _how_to_go_on(workdir: pathlib.Path) -> str:
    """How to resume a run that a limit of the system has ended."""
    steps = find_steps(workdir / "checkpoints")
    if not steps:
        return "The run has no checkpoint yet: start it again afterwards."
    return f"Step {steps[0]} is saved: afterwards the same command continues from it."


def parse_flags(argv: list[str], name: str, example: str) -> list[str]:
    """Parse the flags (`name`: the config file); a mistake is a sentence and exit code 2."""
    try:
        argv = cli.read_paths(argv)
        if not re.search(r"^--?(h|help\w*)$", "\n".join(argv[1:]), re.MULTILINE):
            _check_config(argv, name, example)
        return flags.FLAGS(argv)
    except (UserError, flags.Error) as error:
        message = str(error)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # ml_collections: an unknown key, or a value of the wrong type.
        message = f"The config is wrong: {' '.join(str(error).split())}"
    sys.exit(cli.report(message))


def _check_config(argv: list[str], flag: str, example: str) -> None:
    """Refuse what ml_collections would refuse with a traceback, or with the key alone.

    That is a wrong file, a key of a section that is not there, a key of a value, and a value
    for a section.
    """
    given = []
    for arg, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, value = arg.lstrip("-").partition("=")
        if arg.startswith("-"):
            given.append((name, value if equals else following))
    configs = [load_config(value) for name, value in given if name == flag]
    if not configs:
        raise UserError(f"Give a config file, such as --{flag}={example}.")
    for name, value in given:
        first, *keys = name.split(".")
        section = configs[-1] if first == flag and keys else None
        for level, key in enumerate(keys if section else ()):
            path, inner = ".".join([first, *keys[:level]]), keys[level + 1 :]
            if not isinstance(section, ConfigDict):
                raise UserError(f"{path} is a value: it has no key {key!r}.")
            if key not in section and inner:
                near = difflib.get_close_matches(key, list(section), 1)
                raise UserError(
                    f"There is no {path}.{key}: did you mean {path}.{near[0]}?"
                    if near
                    else f"There is no {path}.{key} whose keys could be set: give it as a "
                    f"whole, as in --{path}.{key}=\"{{'{inner[0]}': …}}\"."
                )
            section = section.get(key)
        if isinstance(section, ConfigDict) and not value.startswith("{"):
            keys = ", ".join(f"{name}.{key}" for key in section)
            raise UserError(
                f"{name} is a section and takes no value such as {value!r}: set one of its "
                f"keys, {keys}."
            )
