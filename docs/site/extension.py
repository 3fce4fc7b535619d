"""The site's own parts: an extension of Sphinx that fills pages from code and results."""

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


def setup(app):
    """Sphinx calls this."""
    app.connect("source-read", fill)
    docstrings.setup(app)
    sources.setup(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
