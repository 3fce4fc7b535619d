"""The site's own parts: an extension of Sphinx that fills pages from code and results."""

import pathlib
import re

from myst_nb.core import render
from sphinx.errors import ExtensionError

from docs.site import config_keys, docstrings, programs, sources, studies

# A line of a page that is replaced before it is read: `<!-- generated: NAME -->`.
MAKERS = {
    "config keys": config_keys.make_tables,
    "programs": programs.make_tables,
    "studies": studies.make_tables,
}


def fill(app, docname, source):
    """Put what is generated into a page."""
    for name, make in MAKERS.items():
        mark = f"<!-- generated: {name} -->"
        if mark in source[0]:
            source[0] = source[0].replace(mark, make())


def join_streams(outputs):
    """Outputs of a cell, with what a program printed in one piece.

    IPython hands it over in parts of 100 bytes, and MyST-NB would break the line behind each.
    """
    joined = []
    for output in outputs:
        if output.get("name") == "stderr":
            continue  # not shown
        last = joined[-1] if joined else {}
        if output["output_type"] == last.get("output_type") == "stream":
            last["text"] += output["text"]
        else:
            joined.append(output)
    return joined


def check_offline(app, error):
    """Refuse a page that loads anything from another site: the built site needs no network."""
    loads = re.compile(
        r"<(?:script|link|img|iframe)[^>]* (?:src|href)=\"(?:https?:)?//"
    )
    for page in pathlib.Path(app.outdir).rglob("*.html") if not error else ():
        if found := loads.search(page.read_text(encoding="utf-8")):
            raise ExtensionError(f"{page} loads from another site: {found[0]}")


def setup(app):
    """Sphinx calls this."""
    app.connect("source-read", fill)
    render.coalesce_streams = join_streams
    app.connect("build-finished", check_offline)
    docstrings.setup(app)
    sources.setup(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
