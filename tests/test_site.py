"""The site's content is complete, and equal to its sources."""

import inspect
import re

import pytest

from docs.site import config_keys, docstrings, programs, studies
from sp_jax import methods, models
from sp_jax.augment import adjust_brightness
from sp_jax.config import flatten, get_config
from tests.test_docs import ROOT


def test_every_key_of_a_config_has_a_row_and_a_meaning():
    keys = flatten(get_config().to_dict())
    meanings = config_keys.find_meanings()
    assert meanings.keys() >= keys.keys()
    assert not [key for key in keys if not meanings[key]]
    text = config_keys.make_tables()
    rows = re.findall(r"^\| `([\w.]+)` \| (.*?) \| .* \| (.+) \|$", text, re.MULTILINE)
    defaults = {key: default for key, default, _ in rows}
    assert defaults.keys() >= keys.keys()
    assert (
        defaults["batch_size"] == "`256`"
        and defaults["optimizer.name"] == "the method's"
    )
    options = [
        f"method_options.{option}"
        for name in methods.NAMES
        for option, one in inspect.signature(
            methods.get(name).create
        ).parameters.items()
        if one.kind is one.KEYWORD_ONLY
    ]
    options += [f"model.{option}" for option in models.DOMAINS]
    assert not set(options) - defaults.keys()
    assert "| a whole number of at least 2 | pairs per step, over all devices |" in text


def test_a_program_is_described_with_its_flags():
    assert {"sp_jax.main", "sp_jax.export", "eval.study", "eval.knn"} <= set(
        programs.find_programs()
    )
    text = programs.ask("--helpxml", ["eval.knn"])["eval.knn"]
    default, meaning = programs.read_flags(text)["temperature"]
    assert float(default) == 0.07 and meaning
    assert "alsologtostderr" not in programs.read_flags(text)


@pytest.mark.parametrize(
    "path",
    [*studies.FOLDER.glob("*_quick.csv"), *studies.FOLDER.glob("photographs_*.csv")],
    ids=lambda path: path.stem,
)
def test_written_tables_are_those_of_the_studies(path):
    written = (ROOT / "docs/results.md").read_text()
    found = studies.read_study(path)
    for (factors, (device, command)), measures in found.items():
        assert command.startswith("python -m eval.study") and device
        if factors[0] == "untrained":
            continue
        for title, values in measures.items():
            if title not in ("minutes", "images/s"):
                assert len(values) in (1, 3)  # seeds
                assert f" {studies.mean_text(values, 2)} |" in written


def test_signatures_are_as_they_are_written():
    given = docstrings.write_signature(
        None, "function", "adjust_brightness", adjust_brightness, None, "()", None
    )
    images, numbers = "Float32[Array, 'n 3 height width']", "Float32[Array, 'n']"
    assert given == (f"(x: {images}, factor: {numbers})", images)
    lines = ["With |u|:", "", "    y = |x| * 2", "", "Args:", "    x: `a` or `b`."]
    docstrings.mark_code(None, "function", "crop", adjust_brightness, None, lines)
    formula = ["With \\|u\\|:", "", "::", "", "    y = |x| * 2", "", "Args:"]
    assert lines == [*formula, "    x: ``a`` or ``b``."]
