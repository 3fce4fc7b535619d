"""Docstrings and signatures as they are written in the code, for Sphinx's autodoc."""

import ast
import inspect
import re
import textwrap


def write_signature(app, what, name, obj, options, arguments, returns):
    """The signature as its source has it: annotations with shapes stay readable.

    That of a class is its fields.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(obj))).body[0]
    except (OSError, TypeError):
        return None
    tree = _Aliases(vars(inspect.getmodule(obj))).visit(tree)
    if what == "class" and (fields := [*filter(_is_field, tree.body)]):
        return f"({', '.join(map(ast.unparse, fields))})", None
    if not isinstance(tree, ast.FunctionDef) or arguments is None:
        return None
    if what == "method":
        tree.args.args = [one for one in tree.args.args if one.arg != "self"]
    given = tree.returns and ast.unparse(tree.returns).strip("'")
    return f"({ast.unparse(tree.args)})", given


class _Aliases(ast.NodeTransformer):
    """Puts shapes in the place of the names that a module gives them."""

    def __init__(self, names):
        self.names = names

    def visit_Name(self, node):
        found = self.names.get(node.id)
        if getattr(found, "__module__", "") == "jaxtyping" and "[" in found.__name__:
            text = found.__name__.replace("jaxlib._jax.", "")
            return ast.parse(text, mode="eval").body
        return node


def _is_field(node):
    return isinstance(node, ast.AnnAssign) and not node.target.id.startswith("_")


def mark_code(app, what, name, obj, options, lines):
    """Turn `code`, and formulas that stand further in than the text, into Sphinx's literals."""
    text = re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", "\n".join(lines))
    before, section, after = re.split(r"(?m)(^[A-Z]\w+:$|\Z)", text, maxsplit=1)
    blocks, inside = [], False
    for block in before.split("\n\n"):
        deep = block.startswith("  ")
        if deep and not inside:
            blocks.append("::")
        if not deep:  # |x| is no substitution
            block = re.sub(
                r"(``.*?``)|\|", lambda m: m[1] or r"\|", block, flags=re.DOTALL
            )
        blocks.append(block)
        inside = deep
    lines[:] = ("\n\n".join(blocks) + section + after).split("\n")


def skip(app, what, name, obj, skipped, options):
    """Leave out what a module imports from others, and fields that a NamedTuple explains."""
    foreign = not getattr(obj, "__module__", "sp_jax").startswith("sp_jax")
    field = (getattr(obj, "__doc__", "") or "").startswith("Alias for")
    return True if foreign or field else None


def setup(app):
    """Connect them; napoleon, at 500, reads what `mark_code` leaves."""
    app.connect("autodoc-process-signature", write_signature)
    app.connect("autodoc-process-docstring", mark_code, priority=400)
    app.connect("autodoc-skip-member", skip)
