"""Links of a page to source files, as `../sp_jax/config.py`, lead to pages that show them."""

import html
import posixpath

from docutils import nodes
from sphinx import addnodes


def _page(target):
    return posixpath.normpath(posixpath.join("source", target.replace("../", "")))


def link(app, doctree, docname):
    """Sphinx would offer the file for download."""
    for node in list(doctree.findall(addnodes.download_reference)):
        target = node["reftarget"]
        if target.endswith(".py"):
            found = app.env.relfn2path(target, docname)[0]
            uri = app.builder.get_relative_uri(docname, _page(found))
            node.replace_self(nodes.reference("", "", *node.children, refuri=uri))


def pages(app):
    """A page for each source file that a link names."""
    for file in map(str, app.env.dlfiles):
        if file.endswith(".py"):
            text = (app.srcdir / file).read_text()
            name = _page(file).removeprefix("source/")
            body = app.builder.highlighter.highlight_block(
                text, "python", linenos="inline"
            )
            title = html.escape(name)
            context = {"title": title, "body": f"<h1>{title}</h1>{body}"}
            yield f"source/{name}", context, "page.html"


def setup(app):
    """Connect them."""
    app.connect("doctree-resolved", link)
    app.connect("html-collect-pages", pages)
