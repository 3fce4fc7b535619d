"""The Python snippets of the README run as they stand."""

import pathlib
import re
import subprocess
import sys

README = pathlib.Path(__file__).parents[1] / "README.md"


def test_snippets_run():
    snippets = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(snippets) == 2
    for snippet in snippets:
        exec(compile(snippet, str(README), "exec"), {})


def test_losses_import_nothing_but_jax():
    code = (
        "import sys, jax, jax.numpy, jax.scipy; before = set(sys.modules)\n"
        "import sp_jax.losses\n"
        "new = {m.partition('.')[0] for m in set(sys.modules) - before}\n"
        "assert new <= {'sp_jax', 'jax', 'jaxlib'}, new"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=README.parent)
