"""The Python snippets of the README run as they stand."""

import pathlib
import re
import subprocess
import sys

README = pathlib.Path(__file__).parents[1] / "README.md"


def run(snippet):
    """The names that a snippet leaves."""
    names = {}
    exec(compile(snippet, str(README), "exec"), names)
    return names


def test_snippets_do_what_they_promise():
    snippets = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    training, augmenting = snippets
    assert "range(10)" in training
    first = run(training.replace("range(10)", "range(1)"))["loss"]
    assert run(training)["loss"] < 0.95 * first
    assert run(augmenting)["one"].shape == (8, 64, 64, 3)


def test_losses_import_nothing_but_jax():
    code = (
        "import sys, jax, jax.numpy, jax.scipy; before = set(sys.modules)\n"
        "import sp_jax.losses\n"
        "new = {m.partition('.')[0] for m in set(sys.modules) - before}\n"
        "assert new <= {'sp_jax', 'jax', 'jaxlib'}, new"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=README.parent)
