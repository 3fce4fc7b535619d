"""How the programs of this room start, and how they report a mistake."""

import sys
from collections.abc import Callable

from absl import app, flags

from input_pipeline.errors import UserError


def run(program: Callable[[], None]) -> None:
    """Parse the flags and run a program; does not return.

    A wrong flag or a `UserError` is printed as one line and ends it with code 2.
    """

    def parse(argv: list[str]) -> list[str]:
        try:
            return flags.FLAGS(argv)
        except flags.Error as error:
            sys.exit(_report(error))

    def main(argv: list[str]) -> int:
        try:
            if argv[1:]:
                raise UserError(f"Unknown argument {argv[1]!r}: options start with --.")
            program()
        except UserError as error:
            return _report(error)
        return 0

    app.run(main, flags_parser=parse)


def _report(error: Exception) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2
