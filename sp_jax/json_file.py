"""Read JSON files of the project, which may be damaged, and turn numbers into JSON."""

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from sp_jax.errors import UserError


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
      UserError: names the file: it is missing or unreadable, is no UTF-8 text or no JSON,
        holds something other than an object, or is nested too deeply.
    """
    path = pathlib.Path(path)
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise UserError(f"There is no file {path}.") from None
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    except RecursionError as error:
        raise UserError(f"{path} is damaged: it is nested too deeply.") from error
    except ValueError as error:  # No text, no JSON, or a number of too many digits.
        raise UserError(f"{path} is damaged: {error}.") from error
    if not isinstance(content, dict):
        kind = "null" if content is None else type(content).__name__
        raise UserError(f"{path} is damaged: it holds {kind} instead of an object.")
    return content


def to_json(line: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers that JSON can hold: null for one that is not finite."""
    return {k: v if math.isfinite(v) else None for k, v in line.items()}


def from_json(line: Mapping[str, float | None]) -> dict[str, float]:
    """NaN in the place of null."""
    return {k: math.nan if v is None else v for k, v in line.items()}
