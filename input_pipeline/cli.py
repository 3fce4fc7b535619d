"""How the programs start, and how they report a mistake."""

import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from absl import app, flags, logging

from input_pipeline.errors import UserError


def run(program: Callable[[], None]) -> None:
    """Parse the flags and run a program; does not return.

    A wrong flag, a `UserError` or a file that cannot be read or written is printed as one
    line and ends it with code 2.
    """

    def parse(argv: list[str]) -> list[str]:
        try:
            return flags.FLAGS(argv)
        except flags.Error as error:
            sys.exit(_report(error))

    def main(argv: list[str]) -> int:
        logging.set_verbosity(logging.WARNING)  # Orbax reports every read.
        try:
            if argv[1:]:
                raise UserError(f"Unknown argument {argv[1]!r}: options start with --.")
            program()
        except UserError as error:
            return _report(error)
        except OSError as error:
            return _report(f"{error}: check the path, its permissions and the disk.")
        return 0

    app.run(main, flags_parser=parse)


def _report(error: Exception | str) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


def csv_path(text: str) -> pathlib.Path:
    """Check where a table is to be written, before the work is done."""
    path = pathlib.Path(text).expanduser()
    if path.suffix != ".csv" or not path.parent.is_dir():
        raise UserError(f"--out={text} must name a .csv file in a folder that exists.")
    return path


def write_numbers(out: pathlib.Path, numbers: dict[str, Any]) -> None:
    """Print what a table holds, and write it beside the table."""
    for name, value in numbers.items():
        print(f"{name.replace('_', ' ')}: {value}")
    path = out.with_suffix(".json")
    path.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    print(f"written to {out}; some of the pairs are in {out.with_suffix('.png')}")
