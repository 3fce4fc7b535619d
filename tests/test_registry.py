"""Modules by a short name, and a user's own by their import path."""

import sys

import pytest

from sp_jax import registry
from sp_jax.errors import UserError

KNOWN = ("byol", "simclr", "simsiam")


def find(name):
    return registry.find("method", name, "sp_jax.methods", KNOWN)


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A package that lies in a folder of the user's."""
    folder = tmp_path / "outside_methods"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.startswith(folder.name)]:
        del sys.modules[name]


def test_a_known_name_is_a_module_of_the_package():
    assert find("byol").__name__ == "sp_jax.methods.byol"


def test_a_name_with_a_dot_is_an_import_path(outside):
    (outside / "mine.py").write_text("VALUE = 3\n")
    assert find("outside_methods.mine").VALUE == 3


@pytest.mark.parametrize(
    "name", ["simcrl", "", ".simclr", "a..b", "a.b-c", "a/b.py", 3]
)
def test_an_unknown_name_gives_the_known_ones(name):
    with pytest.raises(UserError, match="no method .*mypackage.mymethod") as error:
        find(name)
    if name == "simcrl":
        assert "choose one of: simclr, byol, simsiam" in str(error.value)


@pytest.mark.parametrize("name", ["nowhere.mine", "outside_methods.other"])
def test_a_module_that_is_not_found_names_the_folder(outside, name):
    with pytest.raises(UserError, match=f"holds {name.split('.')[0]}.*PYTHONPATH"):
        find(name)


@pytest.mark.parametrize(
    "source, message",
    [
        ("import nowhere\n", "No module named 'nowhere'.*mine.py, line 1"),
        ("\n1 / 0\n", "ZeroDivisionError.*mine.py, line 2"),
        ("x = = 1\n", "invalid syntax .*mine.py, line 1"),
    ],
)
def test_a_module_with_a_mistake_names_it(outside, source, message):
    (outside / "mine.py").write_text(source)
    with pytest.raises(UserError, match=message):
        find("outside_methods.mine")
