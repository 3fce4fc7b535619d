"""Pages of results, from templates; each page is one file that needs no network."""

import base64
import datetime
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

from eval.compare import tables
from eval.compare.tables import Comparison
from sp_jax import extras
from sp_jax.files import write_text
from sp_jax.versions import describe_command, versions

extras.require("eval", "A page of results")


def _embed(path: pathlib.Path) -> str:
    """A PNG as a data URL."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


@functools.cache
def _templates() -> Any:
    import jinja2

    folder = pathlib.Path(__file__).parent / "templates"
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=jinja2.select_autoescape(),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["embed"] = _embed
    return templates


def write_page(path: pathlib.Path, template: str, **values: Any) -> pathlib.Path:
    """Fill a template and write it, completely or not at all.

    Args:
      path: of the page.
      template: name of a file in `templates/`; of those in HTML all values are escaped.
      **values: what it needs; pictures are paths of PNGs, which become a part of the page.

    Returns:
      The path.
    """
    made = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC"
    about = {"versions": versions(), "made": made, "command": describe_command()}
    values = about | values
    write_text(path, _templates().get_template(template).render(values))
    return path


def write_comparison(
    path: pathlib.Path,
    title: str,
    comparison: Comparison,
    pictures: Sequence[tuple[str, pathlib.Path]],
) -> None:
    """Write all numbers as CSV, and tables of them with the pictures as a page.

    Args:
      path: of both files, without their ending.
      title: of the page.
      comparison: the numbers.
      pictures: what each shows, and its file.
    """
    csv = tables.format_csv(tables.list_values(comparison))
    write_text(path.with_suffix(".csv"), csv)
    write_page(
        path.with_suffix(".html"),
        "comparison.html",
        title=title,
        pictures=pictures,
        **tables.page_values(comparison),
    )
