"""Pages of results: templates in files, filled, each in one file that needs no network."""

import base64
import pathlib
from collections.abc import Sequence
from typing import Any

import jinja2

from eval.results import versions
from eval.runs import format_csv
from sp_jax.files import write_text


def _embed(path: pathlib.Path) -> str:
    """A PNG as the address of an image."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent / "templates"),
    autoescape=jinja2.select_autoescape(),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters["embed"] = _embed


def write_page(path: pathlib.Path, template: str, **values: Any) -> pathlib.Path:
    """Fill a template and write it, whole or not at all.

    Args:
      path: of the page.
      template: name of a file in `templates/`; of those in HTML all values are escaped.
      **values: what it needs; pictures are paths of PNGs, which become a part of the page.

    Returns:
      The path.
    """
    values = {"versions": versions(), **values}
    write_text(path, _TEMPLATES.get_template(template).render(values))
    return path


def write_comparison(
    path: pathlib.Path,
    title: str,
    protocol: str,
    table: Sequence[Sequence[str]],
    labels: int,
    pictures: Sequence[tuple[str, pathlib.Path]],
) -> None:
    """Write a table of numbers by label as CSV and, beside its pictures, as a page.

    Args:
      path: of both files, without their ending.
      title: of the page.
      protocol: how the numbers were measured.
      table: rows of text, the names of the columns first.
      labels: how many columns hold numbers, the last ones.
      pictures: what each shows, and its file.
    """
    write_text(path.with_suffix(".csv"), format_csv(table))
    values = {"title": title, "protocol": protocol, "table": table, "labels": labels}
    path = path.with_suffix(".html")
    write_page(path, "comparison.html", pictures=pictures, **values)
